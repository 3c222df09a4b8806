"""Disks that are full or read-only: one sentence, the right exit code, and what was written before is whole.

Real file systems in memory, where the system lets tests mount one; a user that may write everywhere sees no other refusal.
"""

import json
import os
import subprocess

import pytest

from svlm_jax.cli import main as cli
from svlm_jax.host.folders import current
from svlm_jax.streaming.saved import is_stream
from tests.cli.test_watch import MODEL, clip, sentence, watch  # noqa: F401


def mount(folder, *options):
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)], check=False, capture_output=True
    )
    if done.returncode:
        pytest.skip("the system lets tests mount nothing")


@pytest.fixture
def disk(tmp_path):
    """A disk of 64 KiB."""
    (tmp_path / "disk").mkdir()
    mount(tmp_path / "disk", "size=64k")
    yield tmp_path / "disk"
    subprocess.run(["umount", str(tmp_path / "disk")], check=True)


@pytest.fixture
def sealed(disk):
    """A disk that can only be read, with a file on it."""
    (disk / "old.jsonl").write_text("old\n")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    return disk


@pytest.mark.parametrize("name", ["new", "old.jsonl"])
@pytest.mark.parametrize("option", ["--vtt", "--srt", "--jsonl", "--video", "--save-state"])
def test_a_read_only_disk_is_said_before_the_run(option, name, clip, sealed, capsys):  # noqa: F811
    if (option, name) == ("--save-state", "old.jsonl"):
        return  # no folder of ours, whatever the disk
    assert watch(clip, option, sealed / name) == 2
    assert "read-only" in sentence(capsys)
    assert os.listdir(sealed) == ["old.jsonl"] and (sealed / "old.jsonl").read_text() == "old\n"


@pytest.mark.parametrize(
    "command",
    [
        ["demo", "--seconds", "2", "--no-live", "--output", "{}/demo"],
        ["eval", "match", "--model", "random:tiny", "--json", "{}/figures.json"],
        ["bench", "--model", "random:tiny", "--json", "{}/bench.json"],
        ["convert", str(MODEL), "{}/model"],
        ["train", "tiny", "folder={}", "loop.steps=1"],
    ],
    ids=lambda command: command[0],
)
def test_every_command_says_that_a_disk_is_read_only(command, sealed, capsys):
    assert cli.main([word.replace("{}", str(sealed)) for word in command]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and ("read-only" in said or "Read-only" in said)
    assert os.listdir(sealed) == ["old.jsonl"]


@pytest.mark.slow
def test_a_full_disk_leaves_the_other_files_and_the_earlier_stream(clip, disk, tmp_path, capsys):  # noqa: F811
    """The picture and the stream have no room; captions, and the stream that was saved elsewhere before, are whole."""
    (disk / "rest").write_bytes(bytes(60_000))
    assert watch(clip, "--duration", "2", "--video", disk / "a.mp4", "--jsonl", tmp_path / "a.jsonl") == 2
    assert "disk/a.mp4 cannot be written: No space left on device." in capsys.readouterr().err
    lines = (tmp_path / "a.jsonl").read_text()
    assert lines.endswith("\n") and [json.loads(line)["start"] for line in lines.splitlines()][:1] == [0.0]
    (disk / "a.mp4").unlink()
    assert watch(clip, "--duration", "2", "--save-state", disk / "state") == 2
    assert "disk/state cannot be written: No space left on device." in capsys.readouterr().err
    assert current(disk / "state") is None and not list((disk / "state").glob("version-*"))
    (disk / "rest").unlink()
    subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
    assert watch(clip, "--duration", "2", "--save-state", disk / "state") == 0
    saved = current(disk / "state")
    used = sum(path.stat().st_blocks * 512 for path in disk.rglob("*"))
    subprocess.run(["mount", "-o", f"remount,size={used + 16_384}", str(disk)], check=True)
    assert watch(clip, "--resume", disk / "state", "--duration", "1", "--save-state", disk / "state") == 2
    assert "No space left on device" in capsys.readouterr().err
    assert current(disk / "state") == saved and is_stream(saved)
