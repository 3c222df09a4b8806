"""Folders that people own: replaced in one instant, whoever kills the writer, and nothing of anybody else's is touched."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from svlm_jax.errors import OutputError
from svlm_jax.host.folders import alone, check_replaceable, current, new_folder, replace_folder

# Reads lines FOLDER NUMBER K: saves the number, with files in folders, in a process that kills itself before its K-th
# operation on files. Says how it ended. One Python forks them all: starting one takes longer than a save.
SAVES = """
import os, signal, sys
from svlm_jax.host.folders import replace_folder

def write(fresh):
    (fresh / "arrays").mkdir()
    for name in ("arrays/a", "arrays/b", "number"):
        (fresh / name).write_text(number)

for line in sys.stdin:
    folder, number, left = line.split()
    left = int(left)

    def count(event, arguments):
        global left
        if event.startswith(("open", "os.", "shutil.")):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if not child:
        sys.addaudithook(count)
        replace_folder(folder, write, lambda version: (version / "number").exists())
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def save() -> Iterator[Callable[..., bool]]:
    """save(folder, number, kill=0): whether it was killed."""
    with subprocess.Popen([sys.executable, "-c", SAVES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def save(folder: Path, number: int, kill: int = 0) -> bool:
            process.stdin.write(f"{folder} {number} {kill}\n")
            process.stdin.flush()
            code = int(process.stdout.readline())
            assert code in (0, -signal.SIGKILL)
            return code != 0

        yield save


def saved(folder: Path) -> int | None:
    """The number that is saved there, in every file of it."""
    version = current(folder)
    if version is None:
        return None
    numbers = {int((version / name).read_text()) for name in ("arrays/a", "arrays/b", "number")}
    assert len(numbers) == 1
    return numbers.pop()


@pytest.mark.parametrize("first", [True, False])
def test_killed_before_every_operation(first, save, tmp_path):
    """The old save or the new one is there, whole; the next save works, and clears away what the killed one left."""
    folder, seen = tmp_path / "state", set()
    neighbours = {name: (tmp_path / name) for name in ("state.new", "state.old", ".state")}
    for path in neighbours.values():
        path.mkdir()
        (path / "mine").write_text("mine")
    step, killed = 0, True
    while killed:
        if step % 4 == 0 and first:
            shutil.rmtree(folder, ignore_errors=True)
        elif step == 0:
            save(folder, 1000)
        before = saved(folder)
        step += 1
        killed = save(folder, step, kill=step)
        after = saved(folder)
        assert after in (before, step) and (killed or after == step)
        seen.add(after == step)
    assert seen == {True, False} and step > 20
    assert saved(folder) == step and sorted(os.listdir(folder)) == sorted([".lock", "CURRENT", current(folder).name])
    assert all((path / "mine").read_text() == "mine" for path in neighbours.values())
    assert sorted(os.listdir(tmp_path)) == sorted(["state", *neighbours])


def test_a_failed_save_leaves_the_old_one(tmp_path):
    def write(fresh: Path) -> None:
        (fresh / "number").write_text("1")

    def full(fresh: Path) -> None:
        (fresh / "number").write_text("2")
        raise OSError(28, "No space left on device")

    replace_folder(tmp_path / "a", write, lambda version: True)
    with pytest.raises(OutputError, match=r"^.*/a cannot be written: No space left on device.$"):
        replace_folder(tmp_path / "a", full, lambda version: True)
    assert (current(tmp_path / "a") / "number").read_text() == "1"
    assert sorted(os.listdir(tmp_path / "a")) == sorted([".lock", "CURRENT", current(tmp_path / "a").name])


def test_a_link_to_a_folder_stays_one(save, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    save(tmp_path / "link", 1)
    assert (tmp_path / "link").is_symlink() and saved(tmp_path / "disk") == 1


def test_only_nothing_or_ours_is_replaced(save, tmp_path):
    ours = lambda version: (version / "number").exists()  # noqa: E731
    (tmp_path / "empty").mkdir()
    for nothing in ("none", "none/deeper", "empty"):
        check_replaceable(tmp_path / nothing, ours)
    save(tmp_path / "saved", 1)
    check_replaceable(tmp_path / "saved", ours)
    (tmp_path / "file").write_text("a film")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").write_text("a photo")
    save(tmp_path / "other", 1)
    (current(tmp_path / "other") / "number").unlink()
    (tmp_path / "dangling").symlink_to("nowhere")
    for path in ("file", "photos", "other", "dangling"):
        with pytest.raises(OutputError, match=rf"{path} cannot be replaced: it holds something else"):
            check_replaceable(tmp_path / path, ours)
    with pytest.raises(OutputError, match="file is no folder"):
        check_replaceable(tmp_path / "file" / "deeper", ours)
    with pytest.raises(OutputError, match="cannot be replaced"):
        replace_folder(tmp_path / "photos", lambda fresh: None, ours)
    assert os.listdir(tmp_path / "photos") == ["one.jpg"]
    (tmp_path / "saved" / "notes.txt").write_text("mine")
    assert not save(tmp_path / "saved", 2) and (tmp_path / "saved" / "notes.txt").exists()


def test_a_new_folder_is_whole_or_not_there(tmp_path):
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "a") as fresh:
        (fresh / "part").write_text("1")
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == []
    with new_folder(tmp_path / "a") as fresh:
        (fresh / "part").write_text(json.dumps(1))
    assert os.listdir(tmp_path) == ["a"] and os.listdir(tmp_path / "a") == ["part"]
    with pytest.raises(OutputError, match="already exists"), new_folder(tmp_path / "a"):
        pass


def test_a_folder_belongs_to_one_process_at_a_time(tmp_path):
    code = "import sys; from svlm_jax.host.folders import alone\nwith alone(sys.argv[1], wait=False): print('held')"
    command = [sys.executable, "-c", code, str(tmp_path)]
    with alone(tmp_path, wait=False):
        second = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        assert second.returncode == 1 and "is in use: another process writes there" in second.stderr
    assert subprocess.run(command, check=False, capture_output=True, text=True, timeout=60).stdout == "held\n"
