"""`svlm watch A B C`: each source has its own captions, files and name; one that fails is told, and the others go on."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from svlm_jax.cli import main as cli
from svlm_jax.cli.watch_several import names_of
from tests import clips
from tests.cli.test_watch import MODEL, SMALL


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two clips of different lengths, and one that is cut off."""
    made = tmp_path_factory.mktemp("clips")
    clips.render(made / "hall.mp4", frames=24 * 4)
    clips.render(made / "gate.mp4", frames=24 * 2, first=24 * 10)
    clips.truncate(clips.render(made / "cut.mkv", frames=24 * 8), 0.5)
    return made


def watch(*argv):
    return cli.main(["watch", *map(str, argv), "--model", str(MODEL), *SMALL])


def said(path):
    return [(row["start"], row["text"], row["tokens"]) for row in map(json.loads, path.read_text().splitlines())]


@pytest.mark.slow
def test_each_source_gets_what_it_gets_alone(folder, tmp_path, capsys):
    sources = [folder / name for name in ("hall.mp4", "gate.mp4")]
    assert watch(*sources, "--jsonl", tmp_path / "logs", "--vtt", tmp_path / "logs") == 0
    out, err = capsys.readouterr()
    for source in sources:
        alone = tmp_path / f"{source.stem}.jsonl"
        assert watch(source, "--jsonl", alone) == 0
        assert said(tmp_path / "logs" / f"{source.stem}.jsonl") == said(alone)
        assert (tmp_path / "logs" / f"{source.stem}.vtt").read_text().startswith("WEBVTT")
    lines = [line.split("] ")[1].partition(":")[0] for line in out.splitlines() if line.startswith("[")]
    assert sorted(lines) == ["gate"] * 2 + ["hall"] * 4
    assert "hall: 4 chunks of video, 0:04 in all" in err and "gate: 2 chunks" in err and "of 2 sources" in err


def test_a_source_that_fails_leaves_the_others_alone(folder, tmp_path, capsys, caplog):
    assert watch(folder / "cut.mkv", folder / "hall.mp4", "--jsonl", tmp_path) == 2
    assert len(said(tmp_path / "hall.jsonl")) == 4
    assert 1 <= len(said(tmp_path / "cut.jsonl")) <= 6
    err = capsys.readouterr().err
    assert "cut failed: " in caplog.text, "at once"
    assert "Failed: " in err and "truncated" in err, "and at the end"
    assert "hall: 4 chunks of video, 0:04 in all" in err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--jsonl", "log.jsonl"], ["--jsonl log.jsonl with 2 sources", "expected a folder", "log/hall.jsonl"]),
        (["--ask", "Who?"], ["--ask with 2 sources", "expected one source"]),
        (["--save-state", "here"], ["--save-state with 2 sources"]),
        (["--resume", "here"], ["--resume with 2 sources"]),
    ],
)
def test_what_is_for_one_source_is_refused_in_a_sentence(words, told, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert watch(folder / "hall.mp4", folder / "gate.mp4", *words) == 2
    complaint = capsys.readouterr().err
    assert complaint.count("\n") == 1 and all(part in complaint for part in told), complaint
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_is_not_there_is_said_before_any_is_watched(folder, tmp_path, capsys):
    assert watch(folder / "hall.mp4", tmp_path / "nothing.mp4") == 2
    out, err = capsys.readouterr()
    assert "nothing.mp4" in err and "[00:00" not in out


def test_names_are_short_and_distinct_and_hold_no_password():
    sources = ["games/match.mp4", "0", "other/match.mp4", "rtsp://anna:secret@hall.example/live", "synthetic:match?seed=3", "-"]
    names = names_of(sources)
    assert names == ["match", "camera-0", "match-2", "hall.example-live", "match-seed=3", "stdin"]
    assert names_of(["a" * 99 + ".mp4", "a" * 98 + "b.mp4"]) == ["a" * 24, "a" * 24 + "-2"]
    assert Path(names_of(["../.."])[0]).name == names_of(["../.."])[0]


@pytest.mark.slow
def test_a_signal_leaves_complete_files_of_every_source(folder, tmp_path):
    sources = [str(folder / name) for name in ("hall.mp4", "gate.mp4")]
    command = [sys.executable, "-m", "svlm_jax", "watch", *sources, "--model", str(MODEL), *SMALL, "--realtime"]
    with subprocess.Popen(
        [*command, "--jsonl", str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline().startswith("[00:00:00] "), process.stderr.read()
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "stopped by Ctrl-C" in stderr and "hall: " in stderr and "Traceback" not in stderr
    assert len(said(tmp_path / "hall.jsonl")) + len(said(tmp_path / "gate.jsonl")) == 1 + len(stdout.splitlines())
