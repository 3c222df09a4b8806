"""Folders that people own: whole or not there, replaced in one instant, and nothing of anybody else's is touched.

new_folder      a folder that gets its name when it is complete
replace_folder  a folder of ours in a new version; whoever kills this process leaves the old one or the new one
check_outside   no other output goes into a folder of ours
alone           the lock of a folder
"""

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import filelock

from svlm_jax.errors import OutputError
from svlm_jax.host.files import Name, sync_folder, write_text, writing

# What `replace_folder` makes: a file that names the version that counts, and the versions.
CURRENT = "CURRENT"
VERSION = re.compile(r"version-[0-9a-f]{8}")
LOCK = ".lock"


@contextlib.contextmanager
def new_folder(destination: Name) -> Iterator[Path]:
    """A temporary folder beside `destination` that becomes it when the block ends well, and vanishes when it does not.

    Raises OutputError when `destination` exists (an empty folder may) or cannot be written.
    """
    destination = Path(destination).expanduser()
    if not _is_nothing(destination):
        raise OutputError(f"{destination} already exists; name a folder that does not.")
    with writing(destination):
        destination.parent.mkdir(parents=True, exist_ok=True)
        temporary = destination.with_name(f".{destination.name}.{secrets.token_hex(4)}.unfinished")
        temporary.mkdir()
    try:
        with writing(destination):
            yield temporary
            _sync_tree(temporary)
            temporary.replace(destination)
            sync_folder(destination.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def replace_folder(folder: Name, write: Callable[[Path], None], is_ours: Callable[[Path], bool]) -> None:
    """Gives a folder of ours a new version, in one instant: `current(folder)` is what was there before, or all of the new.

        FOLDER/version-1f3b09aa/   what write(FOLDER/version-1f3b09aa) made
        FOLDER/CURRENT             "version-1f3b09aa", replaced when that is on the disk

    Everything happens inside of `folder`, and only what this function made there is ever removed. Two processes that do it at
    once do it one after the other.

    Args:
      write: makes the content in a folder that is there and empty.
      is_ours: whether a version (`current(folder)`) is of the kind that may be replaced.
    Raises:
      OutputError: the folder cannot be written, or holds something else; see `check_replaceable`.
    """
    check_replaceable(folder, is_ours)
    folder = Path(folder).expanduser().resolve()
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with alone(folder), writing(folder):
        fresh = folder / f"version-{secrets.token_hex(4)}"
        fresh.mkdir()
        try:
            write(fresh)
            _sync_tree(fresh)
            write_text(folder / CURRENT, fresh.name + "\n")
        finally:
            for part in _leftovers(folder):
                shutil.rmtree(part, ignore_errors=True) if part.is_dir() else part.unlink(missing_ok=True)


def current(folder: Name) -> Path | None:
    """The version of a folder that counts; None when `replace_folder` has not completed one there."""
    folder = Path(folder).expanduser()
    try:
        name = (folder / CURRENT).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None
    return folder / name if VERSION.fullmatch(name) and (folder / name).is_dir() else None


def check_replaceable(folder: Name, is_ours: Callable[[Path], bool]) -> None:
    """OutputError unless `replace_folder` may write there: there is nothing, or something of ours.

    To be called before the work whose result is to be kept there.
    """
    folder = Path(folder).expanduser()
    if not _is_nothing(folder):
        version = current(folder)
        ours = folder.is_dir() and (is_ours(version) if version else all(map(_is_part, folder.iterdir())))
        if not ours:
            raise OutputError(
                f"{folder} cannot be replaced: it holds something else; expected a folder that does not exist, or one that was "
                f"saved before."
            )
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        raise OutputError(f"{folder} cannot be written: {there} is {'read-only' if there.is_dir() else 'no folder'}.")


def check_outside(paths: Iterable[Name], folder: Name) -> None:
    """OutputError when one of the paths lies in a folder that `replace_folder` has made, or is to make."""
    ours = Path(folder).expanduser().resolve()
    for path in paths:
        if ours in Path(path).expanduser().resolve().parents:
            raise OutputError(f"{path} cannot be written: {folder} is a saved stream's own folder; expected another one.")


def _is_nothing(path: Path) -> bool:
    if os.path.lexists(path) and not path.is_dir():
        return False
    with writing(path):
        return not path.exists() or not any(path.iterdir())


def _is_part(path: Path) -> bool:
    """Whether `replace_folder` makes things of this name: what a kill has left of the very first version is ours."""
    unfinished = path.name.startswith(f".{CURRENT}.") and path.name.endswith(".unfinished")
    return bool(VERSION.fullmatch(path.name)) or path.name == LOCK or unfinished


def _leftovers(folder: Path) -> list[Path]:
    version = current(folder)
    return [part for part in folder.iterdir() if _is_part(part) and part.name != LOCK and part != version]


@contextlib.contextmanager
def alone(folder: Name, *, wait: bool = True) -> Iterator[None]:
    """Holds the lock of a folder, a file `.lock` in it; the system gives it back when this process ends, however it ends.

    Raises OutputError when another process holds it and `wait` is off.
    """
    folder = Path(folder)
    lock = filelock.FileLock(folder / LOCK, timeout=-1 if wait else 0)
    with writing(folder):
        try:
            lock.acquire()
        except filelock.Timeout:
            raise OutputError(f"{folder} is in use: another process writes there; expected a folder of its own.") from None
    try:
        yield
    finally:
        lock.release()


def _sync_tree(folder: Path) -> None:
    for place, _, names in os.walk(folder):
        for name in names:
            handle = os.open(os.path.join(place, name), os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        sync_folder(Path(place))
