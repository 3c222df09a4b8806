"""`svlm demo` with random weights in the place of the embedded model's, and how it judges what was said."""

import json

import av
import pytest

from svlm_jax.checkpoint import hf
from svlm_jax.cli import demo_match as demo
from svlm_jax.cli import main as cli
from svlm_jax.synthetic import Match
from tests import checkpoints


@pytest.fixture
def embedded(monkeypatch):
    monkeypatch.setattr(hf, "EMBEDDED_FOLDER", checkpoints.match())


def test_demo_goes_through_the_real_path(embedded, tmp_path, capsys):
    folder = tmp_path / "demo"
    argv = ["demo", "--output", str(folder), "--seconds", "18", "--seed", "3", "--no-live"]
    assert cli.main(argv) == 0
    printed = capsys.readouterr()
    out = " ".join((printed.out + printed.err).split())
    assert "svlm watch" in out and "17 s of video took" in out and "captioned.mp4" in printed.err
    truth = Match(3).seconds(18)
    assert f"{sum(second.event is not None for second in truth)} events" in out
    rows = [json.loads(line) for line in (folder / "captions.jsonl").read_text().splitlines()]
    assert len(rows) == 18
    used, limit = rows[-1]["cache"]["vision"]
    assert used == limit == rows[-2]["cache"]["vision"][0] == 16 * 12  # full, and forgetting, as the model was trained
    with av.open(str(folder / "captioned.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == 18 * demo.FPS
    assert (folder / "captions.vtt").read_text().startswith("WEBVTT")
    assert sorted(path.name for path in folder.iterdir() if path.suffix == ".mp4") == ["captioned.mp4", "match-3-18s.mp4"]


@pytest.mark.parametrize(("seed", "f1", "words"), [(3, 1, "events 1.00"), (4, 0.5, "events 0.")])
def test_captions_are_judged_by_the_match_that_was_shown(seed, f1, words, tmp_path):
    file = tmp_path / "captions.jsonl"
    file.write_text("".join(json.dumps({"text": second.line}) + "\n" for second in Match(3).seconds(60)))
    report = demo.judge(file, seed)
    assert report.event_f1 == 1 if f1 == 1 else report.event_f1 < f1
    assert words in demo.verdict(report)


def test_a_folder_that_cannot_be_made_is_named(embedded, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert cli.main(["demo", "--output", str(tmp_path / "file")]) == 2
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_without_the_model_the_demo_says_so(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(hf, "EMBEDDED_FOLDER", tmp_path)
    assert cli.main(["demo", "--output", str(tmp_path / "demo")]) == 2
    assert "lacks the embedded model" in capsys.readouterr().err
