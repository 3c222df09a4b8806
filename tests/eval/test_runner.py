"""Runs that are interrupted, shared, short of videos, or continued in the wrong folder."""

import dataclasses
import json

import pytest

from svlm_jax.errors import ConfigError, EvalError, OutputError, StreamError
from svlm_jax.eval.benchmarks import BENCHMARKS
from svlm_jax.eval.interface import Answer
from svlm_jax.eval.records import stored
from svlm_jax.eval.runner import Run, run_row, share
from svlm_jax.host.signals import Interrupted
from tests.eval import sets
from tests.eval.fakes import Reader

OVO = BENCHMARKS["ovo-bench"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = sets.ovo_bench(tmp_path_factory.mktemp("ovo"))
    sets.clip(folder / "src" / "b.mp4")
    docs = json.loads((folder / "ovo_bench_new.json").read_text())
    docs.append({**docs[0], "id": 6, "video": "src/b.mp4", "realtime": 3.0})
    sets.write(folder / "ovo_bench_new.json", docs)
    return folder


def planned(folder, results, **more):
    return Run(OVO, folder, results, OVO.protocol, **more)


def by_number():
    """Answers by what was seen, so that a stream that goes on wrongly is noticed."""
    return Reader(lambda question, seen: "ABC"[seen[-1] % 3] if "Options" in question else "Yes" if len(seen) % 2 else "No 2")


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("row", ["stream", "prefix"])
@pytest.mark.parametrize("answered", [1, 4, 8])
def test_an_interrupted_run_goes_on_to_the_same_report(folder, tmp_path, row, answered):
    whole = run_row(planned(folder, tmp_path / "whole"), by_number(), row)
    assert whole["counts"]["answered"] == 9

    reader = by_number()
    answer = reader.answer

    def until(question, seen):
        if len(reader.asked) > answered:
            raise Interrupted(15)
        return answer(question, seen)

    reader.answer = until
    with pytest.raises(Interrupted):
        run_row(planned(folder, tmp_path / "torn"), reader, row)
    records = tmp_path / "torn" / row / "items.jsonl"
    assert len(lines(records)) == answered
    with records.open("a") as file:  # a kill in the middle of a line
        file.write('{"id": "6", "respo')
    again = by_number()
    assert run_row(planned(folder, tmp_path / "torn"), again, row) == whole
    assert len(again.asked) == 9 - answered
    kept = [{**record, "ms": 0} for record in lines(records)]
    assert kept == [{**record, "ms": 0} for record in lines(tmp_path / "whole" / row / "items.jsonl")]


def test_nothing_is_done_twice(folder, tmp_path):
    first = run_row(planned(folder, tmp_path), by_number(), "last")
    reader = by_number()
    assert run_row(planned(folder, tmp_path), reader, "last") == first and reader.asked == []


def test_answers_may_hold_any_end_of_a_line(folder, tmp_path):
    said = "A\n\r\x0b\x1c\x85\u2028\u2029B"
    run_row(planned(folder, tmp_path), Reader(lambda question, seen: said), "last")
    reader = by_number()
    assert run_row(planned(folder, tmp_path), reader, "last")["counts"]["answered"] == 9 and reader.asked == []
    assert {record["response"] for record in stored(tmp_path / "last").values()} == {said}


def test_a_limit_can_be_raised(folder, tmp_path):
    few = run_row(planned(folder, tmp_path, limit=3), by_number(), "stream")
    assert few["counts"]["items"] == few["counts"]["answered"] == 3
    reader = by_number()
    assert run_row(planned(folder, tmp_path), reader, "stream")["counts"]["answered"] == 9 and len(reader.asked) == 6
    run_row(planned(folder, tmp_path), by_number(), "stream")
    about = json.loads((tmp_path / "stream" / "manifest.json").read_text())
    (again,) = about["continued"]  # the manifest says which runs the answers are from
    assert (about["limit"], again["limit"]) == (3, None) and {"date", "commit", "machine", "command"} <= set(again)


def test_hosts_share_the_videos(folder, tmp_path):
    items = planned(folder, tmp_path).items()
    parts = [share(items, (number, 3)) for number in (1, 2, 3)]
    assert sorted(item.id for part in parts for item in part) == sorted(item.id for item in items)
    assert [{item.video for item in part} for part in parts] == [{"src/a.mp4"}, {"src/b.mp4"}, set()]
    half = run_row(planned(folder, tmp_path, shard=(1, 2)), by_number(), "stream")
    assert half["counts"]["answered"] == 8 and half["counts"]["missing"] == 1
    both = run_row(planned(folder, tmp_path, shard=(2, 2)), by_number(), "stream")
    assert both["counts"]["missing"] == 0
    assert sorted(path.name for path in (tmp_path / "stream").glob("items*")) == ["items.1-of-2.jsonl", "items.2-of-2.jsonl"]
    assert both == run_row(planned(folder, tmp_path / "alone"), by_number(), "stream")
    with pytest.raises(ConfigError, match="shard 3/2: expected a number from 1 to 2"):
        planned(folder, tmp_path, shard=(3, 2))


def test_progress_is_told(folder, tmp_path):
    told = []
    run_row(planned(folder, tmp_path, limit=2), by_number(), "stream", progress=lambda done, total: told.append((done, total)))
    assert told == [(0, 2), (1, 2), (2, 2)]


def test_videos_that_are_missing_or_broken_are_counted_and_tried_again(folder, tmp_path):
    docs = json.loads((folder / "ovo_bench_new.json").read_text())
    data = tmp_path / "data"
    sets.clip(data / "src" / "a.mp4")
    (data / "src" / "c.mp4").write_bytes(b"no video")
    sets.write(data / "ovo_bench_new.json", [docs[0], docs[-1], {**docs[0], "id": 7, "video": "src/c.mp4"}])
    result = run_row(planned(data, tmp_path / "out"), by_number(), "stream")
    assert result["counts"]["answered"] == 1 and sum(result["counts"]["skipped"].values()) == 2
    (gone,) = [why for why in result["counts"]["skipped"] if "does not exist" in why]
    assert gone.startswith("the video does not exist")
    sets.clip(data / "src" / "b.mp4")
    reader = by_number()
    result = run_row(planned(data, tmp_path / "out"), reader, "stream")
    assert result["counts"]["answered"] == 2 and len(reader.asked) == 1


def test_a_stream_that_cannot_go_on_ends_its_items_only(folder, tmp_path):
    reader = by_number()
    feed = reader.feed

    def full(chunk):
        if chunk.end > 4:
            raise StreamError("the cache of 9 slots is full")
        feed(chunk)

    reader.feed = full
    counts = run_row(planned(folder, tmp_path), reader, "stream")["counts"]
    assert counts["answered"] == 4 and counts["skipped"] == {"the cache of 9 slots is full": 5}


def test_a_question_that_has_no_room_is_counted(folder, tmp_path):
    """A model refuses what its cache cannot take; what can be asked beside it is."""
    reader = by_number()

    def ask(question, **settings):
        if "bake" in question:
            raise ConfigError("a question of 9999 tokens")
        return Answer("A")

    reader.ask = ask
    counts = run_row(planned(folder, tmp_path), reader, "prefix")["counts"]
    assert counts["answered"] == 8 and counts["skipped"] == {"a question of 9999 tokens": 1}


def test_commentary_that_goes_on_with_its_own_words_does_so_after_an_interruption(tmp_path):
    sports = BENCHMARKS["livesports-cc"]
    protocol = dataclasses.replace(sports.protocol, previous="own")
    folder = sets.live_sports(tmp_path / "data")
    whole, torn = (Run(sports, folder, tmp_path / name, protocol) for name in ("whole", "torn"))
    reader = Reader()
    result = run_row(whole, reader, "chunked")
    assert [view.previous for view in reader.views] == ["before", "frame 3 frame 5 frame 7 frame 8"]

    def stop(done, total):
        if done:
            raise Interrupted(15)

    with pytest.raises(Interrupted):
        run_row(torn, Reader(), "chunked", progress=stop)
    again = Reader()
    assert run_row(torn, again, "chunked") == result
    assert [view.previous for view in again.views] == ["frame 3 frame 5 frame 7 frame 8"]


def test_items_of_one_name_are_refused(folder, tmp_path):
    docs = json.loads((folder / "ovo_bench_new.json").read_text())
    sets.write(tmp_path / "data" / "ovo_bench_new.json", [*docs, docs[0]])
    with pytest.raises(EvalError, match="data has 2 items named 1: expected one of each"):
        run_row(planned(tmp_path / "data", tmp_path / "out"), by_number(), "last")
    sets.write(tmp_path / "data" / "ovo_bench_new.json", [])
    with pytest.raises(EvalError, match="data has no items"):
        run_row(planned(tmp_path / "data", tmp_path / "out"), by_number(), "last")


def test_results_of_another_run_are_not_mixed(folder, tmp_path):
    run = planned(folder, tmp_path)
    run_row(run, by_number(), "last")
    other = dataclasses.replace(run, protocol=dataclasses.replace(run.protocol, last_frames=8))
    with pytest.raises(EvalError, match=r"holds results of another run: protocol was .* expected another folder"):
        run_row(other, by_number(), "last")
    stranger = by_number()
    stranger.name = "stranger"
    with pytest.raises(EvalError, match='model was "reader", now it is "stranger"'):
        run_row(run, stranger, "last")
    (tmp_path / "last" / "manifest.json").write_text("{")
    with pytest.raises(EvalError, match="is no manifest of an evaluation"):
        run_row(run, by_number(), "last")


def test_rows_that_make_no_sense(folder, tmp_path):
    with pytest.raises(ConfigError, match="row 'chunked' of ovo-bench: expected one of prefix, last, stream"):
        run_row(planned(folder, tmp_path), by_number(), "chunked")


def test_folders_that_cannot_be_made(folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written: Not a directory"):
        run_row(planned(folder, tmp_path / "file"), by_number(), "last")
