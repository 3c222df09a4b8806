"""Every benchmark, over a small set in its published format: read, shown, answered, graded, reported."""

import dataclasses
import json
import shutil

import pytest

from svlm_jax.cli.eval_published import NAMES
from svlm_jax.errors import EvalError
from svlm_jax.eval.benchmarks import BENCHMARKS, named
from svlm_jax.eval.protocols import Outcome
from svlm_jax.eval.runner import Run, run_row
from svlm_jax.models.resize_rule import PUBLISHED
from tests.eval import sets
from tests.eval.fakes import Reader


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """By name, made when first asked for."""
    made = {}

    def folder(name):
        if name not in made:
            made[name] = sets.SETS[name](tmp_path_factory.mktemp(name))
        return made[name]

    return folder


def test_the_command_line_knows_all_of_them():
    assert sorted(NAMES) == sorted(BENCHMARKS) == sorted(sets.SETS)
    with pytest.raises(EvalError, match="nonsense is no benchmark that is known; expected one of inf-streams"):
        named("nonsense")


def oracle(items):
    """A model that knows the answers: the next one, where the same is asked again at a later time."""
    right = {item.question: [other.answer for other in items if other.question == item.question] for item in items}

    def answer(question, seen):
        if question not in right:
            return "Yes"
        right[question].append(right[question].pop(0))
        return right[question][-1]

    return Reader(answer)


@pytest.mark.parametrize("name", sorted(set(sets.SETS) - {"inf-streams"}))
def test_from_files_to_a_report(name, folders, tmp_path):
    benchmark = BENCHMARKS[name]
    run = Run(benchmark, folders(name), tmp_path, benchmark.protocol)
    items = run.items()
    assert len({item.id for item in items}) == len(items)
    for row in benchmark.rows:
        result = run_row(run, oracle(items), row)
        assert result["counts"] == {
            "items": len(items), "answered": len(items), "missing": 0, "skipped": {}, "unparsed": 0, "empty": 0
        }  # fmt: skip
        assert json.loads((tmp_path / row / "report.json").read_text()) == result
        about = json.loads((tmp_path / row / "manifest.json").read_text())
        assert about["row"] == row and about["model"] == "reader" and about["protocol"]["fps"] == benchmark.protocol.fps
        if benchmark.grade is not None and name != "streaming-bench":
            assert result["official"]["total"] == result["strict"]["total"] == 100.0


def test_streaming_bench_in_detail(folders):
    benchmark = BENCHMARKS["streaming-bench"]
    items = {item.id: item for item in benchmark.read(folders("streaming-bench"))}
    assert list(items) == ["real_0_0", "real_1_0", "sqa_0_0", "sqa_1_0", "proactive_0_0"]
    assert (items["real_0_0"].start, items["real_0_0"].time, items["real_1_0"].start) == (5.0, 65.0, 0.0)  # the last minute
    assert items["real_0_0"].options == items["sqa_0_0"].options == ("one", "two", "three", "four")
    assert "right answer is C." in items["sqa_1_0"].question and "right answer" not in items["sqa_0_0"].question
    item = items["proactive_0_0"]
    assert (item.due, item.until) == (5.0, 9.0)

    def points(at, response):
        grade = benchmark.grade(Outcome(item, response, at=at))
        return grade.official, grade.strict

    assert points(7.0, "GOAL") == (1, 1) and points(3.0, "goal!") == (0, 1)
    assert points(7.1, "GOAL") == points(None, "GOAL") == points(5.0, "no") == (0, 0)


def test_whole_videos_in_detail(folders):
    lvb = BENCHMARKS["longvideobench"].read(folders("longvideobench"))
    assert [(item.options, item.answer, item.track) for item in lvb] == [(("x", "y", "z"), "C", "15"), (("x", "y"), "B", "60")]
    mvb = {item.task: item for item in BENCHMARKS["mvbench"].read(folders("mvbench"))}
    assert len(mvb) == 20
    assert (mvb["action_sequence"].start, mvb["action_sequence"].time) == (2.0, 4.4) and mvb["action_count"].time is None
    assert mvb["episodic_reasoning"].fps == 3.0 and mvb["action_count"].answer == "B"
    mme = BENCHMARKS["video-mme"].read(folders("video-mme"))
    assert mme[0].options == ("one", "two", "three", "four") and [item.track for item in mme] == ["short", "long"]


def test_a_game_in_windows(folders, tmp_path):
    benchmark = BENCHMARKS["inf-streams"]
    run = Run(
        benchmark, folders("inf-streams"), tmp_path, benchmark.protocol, resize=dataclasses.replace(PUBLISHED, size=(56, 84))
    )
    items = run.items()
    assert [(item.start, item.time) for item in items] == [(900, 1000), (1000, 1100), (1100, 1200)]
    assert items[1].previous == "early tip" and items[1].opening == "early tip"  # words that end by 1000 s
    result = run_row(run, Reader(), "stream")
    assert result["counts"]["answered"] == 2  # the window before 1000 s is nobody's
    assert result["counts"]["skipped"] == {"it begins before the stream does": 1}
    assert run_row(run, Reader(), "prefix")["counts"] == result["counts"]
    (line,) = [json.loads(line) for line in (tmp_path / "stream" / "predictions.jsonl").read_text().splitlines()]
    assert line["video"] == "abc.mp4" and (line["chunk_start"], line["chunk_end"]) == (1000.0, 1200.0)
    assert len(line["items"]) == 200 and line["items"][0]["response"] == "frame 101"


FIRST = {
    "inf-streams": "temp_score_clips.jsonl",
    "livesports-cc": "LiveSports-3K-CC.json",
    "streaming-bench": "questions_real.json",
    "rvs-ego": "ego/ego4d_oe.json",
    "rvs-movie": "movie/movienet_oe.json",
    "mlvu": "json/1_plotQA.json",
    "longvideobench": "lvb_val.json",
    "video-mme": "test.jsonl",
    "mvbench": "json/action_sequence.json",
}
NEEDED = {
    "inf-streams": "content",
    "livesports-cc": "event_asr_text",
    "streaming-bench": "questions",
    "rvs-ego": "conversations",
    "rvs-movie": "conversations",
    "mlvu": "candidates",
    "longvideobench": "correct_choice",
    "video-mme": "answer",
    "mvbench": "question",
}


@pytest.mark.parametrize("name", sorted(FIRST))
def test_a_field_that_is_missing(name, folders, tmp_path):
    shutil.copytree(folders(name), tmp_path / "set", ignore=shutil.ignore_patterns("*.mp4", "*.jpg"))
    path = tmp_path / "set" / FIRST[name]
    text = path.read_text()
    docs = [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)
    del docs[0][NEEDED[name]]
    sets.write(path, docs)
    with pytest.raises(EvalError) as error:
        BENCHMARKS[name].read(tmp_path / "set")
    said = str(error.value)
    assert path.name in said and f"no field '{NEEDED[name]}'" in said and "\n" not in said


@pytest.mark.parametrize("name", sorted(sets.SETS))
def test_videos_that_are_missing_are_counted_and_tried_again(name, folders, tmp_path):
    benchmark, data = BENCHMARKS[name], tmp_path / "data"
    resize = dataclasses.replace(PUBLISHED, size=(56, 84))
    shutil.copytree(folders(name), data, ignore=shutil.ignore_patterns("*.mp4", "show_1"))
    run = Run(benchmark, data, tmp_path / "out", benchmark.protocol, resize=resize)
    counts = run_row(run, Reader(), "stream")["counts"]
    why = "the video does not exist"
    assert counts["answered"] == counts["missing"] == 0 and sum(counts["skipped"].values()) == counts["items"]
    assert all(why in reason or "begins before" in reason for reason in counts["skipped"]), counts
    shutil.copytree(folders(name), data, dirs_exist_ok=True)
    whole = Run(benchmark, data, tmp_path / "whole", benchmark.protocol, resize=resize)
    assert run_row(run, Reader(), "stream") == run_row(whole, Reader(), "stream")


@pytest.mark.parametrize("name", sorted(sets.SETS))
def test_a_folder_of_something_else(name, tmp_path):
    with pytest.raises(EvalError, match="does not hold this benchmark: expected"):
        BENCHMARKS[name].read(tmp_path)
    with pytest.raises(EvalError, match="is no folder"):
        BENCHMARKS[name].read(tmp_path / "gone")


def test_published_texts_may_hold_any_end_of_a_line(tmp_path):
    path = sets.video_mme(tmp_path) / "test.jsonl"
    path.write_text(path.read_text().replace("How many?", "How\u2028many\x85?").replace("\n", "\r\n"), newline="")
    assert "How\u2028many\x85?" in BENCHMARKS["video-mme"].read(tmp_path)[1].question


def test_parquet_without_its_reader(tmp_path, monkeypatch):
    (tmp_path / "test.parquet").write_bytes(b"PAR1")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EvalError, match="is a parquet file: expected pyarrow"):
        BENCHMARKS["video-mme"].read(tmp_path)
