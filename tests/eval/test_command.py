"""`svlm eval NAME` as its user sees it, with a model of six verbs in place of a checkpoint."""

import json
from types import SimpleNamespace

import pytest

from svlm_jax.cli import eval_published
from svlm_jax.cli import main as cli
from svlm_jax.models.resize_rule import PUBLISHED
from tests.endpoints import serving
from tests.eval import sets
from tests.eval.fakes import Reader


@pytest.fixture
def reader(monkeypatch):
    reader = Reader(lambda question, seen: "B")
    reader.vlm = SimpleNamespace(resize_rule=PUBLISHED.at_most)
    monkeypatch.setattr(eval_published, "_watcher", lambda arguments: reader)
    return reader


def run(*argv):
    return cli.main(["eval", *map(str, argv)])


def test_three_rows_and_their_counts(reader, tmp_path, capsys):
    folder, out = sets.video_mme(tmp_path / "data"), tmp_path / "out"
    argv = ("video-mme", "--data", folder, "--model", "m", "--results", out, "--last-frames", 2)
    assert run(*argv) == 0
    said = capsys.readouterr().out
    assert said.count("2 of 2 items answered, 0 unparsed, 0 empty") == 3
    assert "stream  50.0 (50.0 strict)" in said and "short: 100.0 (100.0 strict)" in said and "long: 0.0" in said
    assert "16 tokens in the cache and 1.0 ms for an answer" in said
    assert sorted(path.name for path in out.iterdir()) == ["last", "prefix", "stream"]
    assert json.loads((out / "last" / "manifest.json").read_text())["protocol"]["last_frames"] == 2
    count = len(reader.asked)
    assert run(*argv) == 0 and len(reader.asked) == count  # nothing is left to do
    assert run(*argv[:-1], 4) == 2
    assert "holds results of another run" in capsys.readouterr().err


def test_rows_limits_and_shares(reader, tmp_path, capsys):
    folder, out = sets.video_mme(tmp_path / "data"), tmp_path / "out"
    common = ("video-mme", "--data", folder, "--model", "m", "--results", out)
    assert run(*common, "--rows", "last", "--limit", 1, "--shard", "1/2") == 0
    assert "1 of 1 items answered" in capsys.readouterr().out
    assert [path.name for path in out.iterdir()] == ["last"] and (out / "last" / "items.1-of-2.jsonl").exists()


def test_a_judge_for_what_is_there(reader, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder, out = sets.rvs(tmp_path / "data"), tmp_path / "out"
    common = ("rvs-ego", "--data", folder, "--results", out, "--rows", "stream")
    assert run(*common, "--model", "m") == 0
    assert "no score without a judge" in capsys.readouterr().out
    with serving() as server:
        server.reply = lambda request: '{"pred": "yes", "score": 3}'
        assert run(*common, "--judge", "judge-1", "--judge-url", server.url) == 0
    said = capsys.readouterr().out
    assert "accuracy 100.0 (100.0 strict), score 3.0 (3.0 strict); judge judge-1, 20" in " ".join(said.split())


def test_what_is_wrong_is_said_before_a_model_is_loaded(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(eval_published, "_watcher", lambda arguments: pytest.fail("a model was loaded"))
    folder = sets.live_sports(tmp_path / "data")
    common = ("livesports-cc", "--data", folder, "--model", "m", "--judge", "j", "--judge-url", "http://localhost:1")
    assert run(*common, "--baseline", tmp_path / "gone.jsonl") == 2
    assert "gone.jsonl is no file; expected the predictions" in capsys.readouterr().err
    assert run("livesports-cc", "--data", folder, "--model", "m", "--rows", "stream,best") == 2
    assert "row 'best' of livesports-cc" in capsys.readouterr().err
    assert run("video-mme", "--data", folder, "--model", "m") == 2
    assert "does not hold this benchmark" in capsys.readouterr().err
    assert run("livesports-cc", "--data", folder, "--model", "m", "--memory", "vsb") == 2
    assert "--memory vsb: livesports-cc is commentary" in capsys.readouterr().err


def test_answers_from_a_memory(reader, tmp_path, monkeypatch):
    """What comes second by second goes into the memory that was asked for, with the benchmark's answers in mind."""
    made = []

    def recaller(watcher, memory, *, max_new_tokens):
        made.append((memory.name, memory.budget, max_new_tokens))
        return watcher

    monkeypatch.setattr("svlm_jax.eval.qa_adapter.QAAdapter", recaller)
    common = ("rvs-ego", "--data", sets.rvs(tmp_path / "data"), "--model", "m", "--results", tmp_path / "out")
    assert run(*common, "--rows", "stream", "--memory", "vsb+par,budget=600") == 0
    assert made == [("vsb+par", 600, 256)]


def test_answers_that_a_benchmark_ships(tmp_path, capsys):
    folder = sets.ovo_bench(tmp_path / "data")
    shipped = {"backward": [{"id": 1, "task": "EPM", "response": "B"}], "realtime": [], "forward": []}
    sets.write(tmp_path / "answers" / "m.json", shipped)
    assert run("ovo-bench", "--data", folder, "--answers", tmp_path / "answers") == 0
    said = capsys.readouterr().out
    assert "answers  33.33 (33.33 strict)" in said and "1 of 8 items answered" in said
    assert run("mlvu", "--data", sets.mlvu(tmp_path / "mlvu"), "--answers", tmp_path / "answers") == 2
    assert "answers of mlvu: expected ovo-bench" in capsys.readouterr().err


def test_a_judge_that_fails_and_videos_that_are_missing_are_told(reader, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder, out = sets.rvs(tmp_path / "data"), tmp_path / "out"
    with serving() as server:
        server.reply = lambda request: "Fine." if "more bars" in request["messages"][1]["content"] else 401
        judge = ("--judge", "judge-1", "--judge-url", server.url)
        assert run("rvs-ego", "--data", folder, "--results", out, "--rows", "stream", "--model", "m", *judge) == 0
    said = capsys.readouterr().out
    assert "0 of 2 items judged; of 2 verdicts 1 failed, 1 unparsed" in said
    (folder / "ego" / "videos" / "v1.mp4").unlink()
    assert run("rvs-ego", "--data", folder, "--results", out, "--rows", "last", "--model", "m") == 0
    assert "2 skipped: the video does not exist" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["ovo-bench", "--data", "gone", "--model", "m"], "gone is no folder; expected the benchmark's data"),
        (["ovo-bench", "--data", "."], "neither --model nor --judge: expected a model"),
        (["ovo-bench", "--data", ".", "--model", "m", "--prefix-frames", "7"], "prefix_frames=7: expected an even number"),
        (["ovo-bench", "--data", ".", "--model", "m", "--rows", "best"], "row 'best' of ovo-bench: expected one of prefix"),
        (["ovo-bench", "--data", ".", "--judge", "j", "--judge-url", "u"], "ovo-bench needs no judge"),
        (["rvs-ego", "--data", ".", "--judge", "j"], "--judge and --judge-url belong together"),
        (["livesports-cc", "--data", ".", "--judge", "j", "--judge-url", "u"], "--baseline: livesports-cc compares"),
    ],
)
def test_what_does_not_fit_is_one_sentence(reader, argv, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(*argv) == 2
    said = capsys.readouterr().err
    assert said.startswith("svlm: ") and sentence in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "word"),
    [(["imagenet"], "'imagenet'"), (["ovo-bench"], "--data"), (["ovo-bench", "--data", ".", "--shard", "3/2"], "3/2")],
)
def test_a_wrong_command_line(argv, word, capsys):
    with pytest.raises(SystemExit) as caught:
        run(*argv)
    assert caught.value.code == 2 and word in capsys.readouterr().err
