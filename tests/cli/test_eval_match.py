"""`svlm eval match` from end to end, with a random model in the place of the embedded one."""

import json

import pytest

from svlm_jax.checkpoint import hf
from svlm_jax.cli import main as cli
from svlm_jax.eval import results
from svlm_jax.synthetic import evaluate
from tests import checkpoints


@pytest.fixture(autouse=True)
def embedded(monkeypatch):
    monkeypatch.setattr(hf, "EMBEDDED_FOLDER", checkpoints.match())


@pytest.mark.slow
def test_figures_table_and_manifest(tmp_path, capsys):
    file = tmp_path / "match.json"
    assert cli.main(["eval", "match", "--seed", "3", "--minutes", "0.1", "--json", str(file), "--window", "vision=4"]) == 0
    out = capsys.readouterr().out
    assert "right score" in out and "0-0.1" in out and str(file) in out
    found = json.loads(file.read_text())
    assert found["seconds"] == 6 and found["seconds_per_second"] > 0
    for name in ("event_f1", "score_accuracy", "score_consistency", "silence_precision"):
        assert name in found and name in found["slices"][0]
    settings = found["manifest"]["settings"]
    assert settings["window"] == {
        "vision": 4, "text": 64, "sink": 8, "tail": 96, "memory": "stream", "positions": "contiguous"
    }  # fmt: skip
    assert settings["query"] is None and found["manifest"]["model"] == "embedded"
    assert found["manifest"]["machine"]["jax"] and "command" in found["manifest"]


@pytest.mark.slow
def test_another_memory(tmp_path):
    file = tmp_path / "match.json"
    argv = ["eval", "match", "--minutes", "0.05", "--cache", "recompute", "--window", "vision=2", "--json", str(file)]
    assert cli.main(argv) == 0
    found = json.loads(file.read_text())
    assert found["seconds"] == 3 and found["manifest"]["settings"]["window"]["memory"] == "recompute"


def test_a_match_that_is_interrupted_leaves_what_is_known(tmp_path, monkeypatch):
    part = {"start": 0, "seconds": 600, **dict.fromkeys(("event_f1", "score_accuracy", "score_consistency"), 1.0),
            "silence_precision": None, "seconds_per_second": 0.01}  # fmt: skip

    def interrupted(*arguments, on_slice, **settings):
        on_slice(part)
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate, "evaluate_match", interrupted)
    file = tmp_path / "match.json"
    with pytest.raises(KeyboardInterrupt):
        cli.main(["eval", "match", "--minutes", "20", "--json", str(file)])
    found = json.loads(file.read_text())
    assert found["slices"] == [part] and found["manifest"]["model"] == "embedded"


def test_bad_inputs(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert cli.main(["eval", "match", "--json", str(tmp_path / "file" / "x.json")]) == 2
    assert str(tmp_path / "file" / "x.json") in capsys.readouterr().err
    assert cli.main(["eval", "match", "--model", "nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err
    for argv, words in ((["eval"], "BENCHMARK"), (["eval", "chess"], "chess"), (["eval", "match", "--minutes", "0"], "'0'")):
        with pytest.raises(SystemExit) as caught:
            cli.main(argv)
        complaint = capsys.readouterr().err
        assert caught.value.code == 2 and words in complaint and complaint.count("\n") == 1


def test_rows_go_on_in_their_file_and_other_settings_are_refused(tmp_path):
    file, settings = tmp_path / "rows.json", {"model": "m", "seeds": (1, 2)}
    rows = results.Rows(file, settings, {"command": "first"})
    rows.add("a", {"x": 1})
    again = results.Rows(file, settings, {"command": "second"})
    assert "a" in again and "b" not in again
    again.add("b", {"x": 2})
    kept = json.loads(file.read_text())
    assert {name: row["run"] for name, row in kept["rows"].items()} == {"a": 0, "b": 1}
    assert [run["command"] for run in kept["runs"]] == ["first", "second"]
    with pytest.raises(results.EvalError, match="model='m', not 'other'"):
        results.Rows(file, {**settings, "model": "other"}, {})
