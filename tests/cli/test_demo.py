import json

import av

from svlm_jax import cli


def test_demo_goes_through_the_real_path(tmp_path, capsys):
    folder = tmp_path / "demo"
    argv = ["demo", "--output", str(folder), "--seconds", "10", "--no-live"]
    assert cli.main(argv) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "random weights: its words are noise" in out
    assert "svlm watch" in out
    rows = [json.loads(line) for line in (folder / "captions.jsonl").read_text().splitlines()]
    assert len(rows) == 10
    used, limit = rows[-1]["cache"]["vision"]
    assert used == limit == rows[-2]["cache"]["vision"][0] == 8 * rows[0]["cache"]["vision"][0]  # full, and forgetting
    with av.open(str(folder / "captioned.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == 240
    assert (folder / "captions.vtt").read_text().startswith("WEBVTT")

    first = (folder / "captions.jsonl").read_text()
    assert cli.main(argv) == 0  # again, over its own output
    words = [json.loads(line)["text"] for line in first.splitlines()]
    assert [json.loads(line)["text"] for line in (folder / "captions.jsonl").read_text().splitlines()] == words


def test_a_folder_that_cannot_be_made_is_named(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert cli.main(["demo", "--output", str(tmp_path / "file")]) == 2
    assert str(tmp_path / "file") in capsys.readouterr().err
