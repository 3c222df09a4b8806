import json
from pathlib import Path

import pytest

from svlm_jax.cli import main as cli
from tests import clips

MODEL = Path(__file__).parents[1] / "golden" / "streamingvlm" / "checkpoint"


def said(model, clip, folder):
    argv = [
        "--model",
        str(model),
        "--jsonl",
        str(folder / "out.jsonl"),
        "--no-live",
        "--window",
        "vision=2,text=2,sink=4,tail=4",
    ]
    assert cli.main(["watch", str(clip), *argv]) == 0
    return [json.loads(line)["text"] for line in (folder / "out.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_there_and_back_says_the_same(tmp_path):
    clip = clips.render(tmp_path / "clip.mp4", frames=24 * 3)
    assert cli.main(["convert", str(MODEL), str(tmp_path / "orbax")]) == 0
    assert cli.main(["convert", str(tmp_path / "orbax"), str(tmp_path / "hf"), "--to", "hf"]) == 0
    texts = [said(model, clip, tmp_path) for model in (MODEL, tmp_path / "orbax", tmp_path / "hf")]
    assert any(texts[0])
    assert texts[0] == texts[1] == texts[2]


@pytest.mark.parametrize(("words", "layout"), [([], "an Orbax checkpoint"), (["--to", "hf"], "a Hugging Face checkpoint")])
def test_what_was_written_is_said(words, layout, monkeypatch, capsys):
    monkeypatch.setattr("svlm_jax.checkpoint.convert.convert", lambda *arguments, **options: None)
    assert cli.main(["convert", "here", "there", *words]) == 0
    assert capsys.readouterr().out == f"Written: there, {layout}. Use it with --model there\n"


@pytest.mark.parametrize(("source", "to", "named"), [("nowhere", "fresh", "nowhere"), (str(MODEL), "taken", "taken")])
def test_what_cannot_be_converted_is_named(source, to, named, tmp_path, capsys):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "precious").touch()
    assert cli.main(["convert", source, str(tmp_path / to)]) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith("svlm: ")
    assert complaint.count("\n") == 1
    assert named in complaint
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["precious", "taken"]
