"""Files that people own: whole or not there, and never what is being read.

    atomic_file     a file that gets its name when it is complete
    Appender        a file of JSON lines that grows, one whole line at a time
    check_distinct  no output is an input or another output, by whatever name

What the system refuses becomes an OutputError of one sentence that names the file.
"""

import contextlib
import errno
import itertools
import json
import math
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TypeAlias
from urllib.request import url2pathname

from svlm_jax.errors import OutputError

Name: TypeAlias = str | os.PathLike[str]

REFUSALS = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO)  # of disks
PLAYLISTS = (".m3u8", ".m3u")
NESTED = 2  # playlists: one of variants, and those
LONGEST_PLAYLIST = 1 << 22  # bytes


@contextlib.contextmanager
def writing(path: Name, *kinds: type[BaseException]) -> Iterator[None]:
    """Turns failures of the system (and of the given kinds) into an OutputError that names the file."""
    failures: tuple[type[BaseException], ...] = (OSError, *kinds)
    try:
        yield
    except failures as error:
        raise OutputError(f"{path} cannot be written: {one_sentence(error)}.") from error


def one_sentence(error: BaseException) -> str:
    """What the system says about a failure, without its number and path: "No space left on device"."""
    said = getattr(error, "strerror", None) or str(error).strip().partition("\n")[0] or type(error).__name__
    return str(said).rstrip(".")


def system_error(error: BaseException) -> OSError | None:
    """What the system refused at the beginning of a chain of exceptions; libraries keep of it no more than its words."""
    chain = [error]
    while (before := chain[-1].__cause__ or chain[-1].__context__) is not None and before not in chain:
        chain.append(before)
    text = " ".join(str(one) for one in chain)
    code = next((code for code in REFUSALS if os.strerror(code) in text), None)
    if code is not None:
        return OSError(code, os.strerror(code))
    return next((one for one in reversed(chain) if isinstance(one, OSError)), None)


# ------------------------------------------------------------------------------------------------ files


@contextlib.contextmanager
def atomic_file(path: Name) -> Iterator[IO[bytes]]:
    """A binary file to write to, which replaces `path` when the block ends well, and vanishes when it does not.

    It is on the disk before it has the name, so that a power cut too leaves the old file or the new one. A symbolic link stays
    one: the file that it points to is replaced. Devices and pipes are written to as they are. Raises OutputError when it cannot
    be written.
    """
    path = Path(path)
    with writing(path):
        if is_device(path):
            with open(path, "wb") as file:
                yield file
            return
        real = path.resolve()
        fresh = real.with_name(f".{real.name}.{secrets.token_hex(4)}.unfinished")
        try:
            with open(fresh, "xb") as file:
                if real.exists():
                    fresh.chmod(real.stat().st_mode & 0o777)
                yield file
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(real)
            sync_folder(real.parent)
        finally:
            fresh.unlink(missing_ok=True)


def is_device(path: Path) -> bool:
    """Whether a path is something that takes bytes without keeping them: a terminal, a pipe, /dev/stdout, /dev/null."""
    return (path.exists() and not path.is_file() and not path.is_dir()) or path.absolute().is_relative_to("/dev")


def sync_folder(folder: Path) -> None:
    """The names in a folder reach the disk; where folders cannot be opened, the system does it in its own time."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_text(path: Name, text: str) -> None:
    """Writes a file of UTF-8 that is there as a whole or not at all; OutputError when it cannot be written."""
    with atomic_file(path) as file:
        file.write(text.encode())


def write_json(path: Name, value: Any, *, indent: int | None = 1) -> None:
    """Writes a JSON file that is there as a whole or not at all; OutputError when it cannot be written."""
    write_text(path, json_text(value, indent=indent) + "\n")


def json_text(value: Any, *, indent: int | None = None) -> str:
    """JSON as the standard has it (RFC 8259): numbers that are not finite become null."""
    return json.dumps(_finite(value), indent=indent, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return value


class Appender:
    """A file of JSON lines (https://jsonlines.org) that grows by one whole line at a time.

    A last line that a kill has torn is cut off when the file is opened; what a full disk leaves of a line is removed again. So
    the file holds whole lines at any time, and no line is ever glued to the rest of another.

    Args:
      path: made if need be; one that exists goes on, unless `fresh`.
    Raises:
      OutputError: it cannot be written, here and in `append`.
    """

    def __init__(self, path: Name, *, fresh: bool = False) -> None:
        self.path = Path(path)
        with writing(self.path), open(self.path, "wb" if fresh else "ab"):
            mend(self.path)

    def append(self, record: Mapping[str, Any]) -> None:
        """Adds a line; it is in the system's hands when this returns. Several processes may add to one file."""
        with writing(self.path), open(self.path, "ab", buffering=0) as file:
            put(file, json_text(record).encode() + b"\n")


def put(file: IO[bytes], data: bytes) -> None:
    """Writes all of `data` at the end of an unbuffered file, or nothing of it and raises the OSError."""
    rest, begin = memoryview(data), None
    with contextlib.suppress(OSError):  # not a file but a pipe
        begin = file.tell()
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError:
        with contextlib.suppress(OSError):
            if begin is not None:
                file.truncate(begin)
                file.seek(begin)
        raise


def mend(path: Name) -> None:
    """Cuts off a last line that a kill has torn; a file that does not exist, or is none, is left alone."""
    path = Path(path)
    if not path.is_file():
        return
    with writing(path), open(path, "r+b") as file:
        end = size = file.seek(0, os.SEEK_END)
        while end:
            begin = max(0, end - (1 << 16))
            file.seek(begin)
            found = file.read(end - begin).rfind(b"\n")
            if found >= 0:
                end = begin + found + 1
                break
            end = begin
        if end < size:
            file.truncate(end)


# ------------------------------------------------------------------------------------------------ what is asked for


def check_target(path: Name) -> Path:
    """The path of a file to write; OutputError when it cannot become one."""
    path = Path(path)
    if path.is_dir():
        raise OutputError(f"{path} is a folder; the name of a file was expected.")
    if not path.parent.is_dir():
        raise OutputError(f"{path} cannot be written: the folder {path.parent} does not exist.")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise OutputError(f"{path} cannot be written: {path if path.exists() else path.parent} is read-only.")
    return path


def check_distinct(outputs: Iterable[Name], inputs: Iterable[Name]) -> None:
    """OutputError when an output is an input or another output, by whatever name: symbolic and hard links are looked through.

    Of an input that is a folder, the files in it count; of a playlist, the files that it lists; "-" is standard input.
    """
    written = [Path(path).expanduser() for path in outputs]
    read = [part for path in inputs for part in _files(os.fspath(path))]
    for path in written:
        for other in read:
            if _same(path, other):
                raise OutputError(f"{path} cannot be written: it is {other}, which is being read; expected a file of its own.")
    for path, other in itertools.combinations(written, 2):
        if _same(path, other):
            raise OutputError(f"{other} cannot be written: it is another output too; expected a file of its own.")


def _files(name: str) -> list[Path]:
    """What is read there; an address of the web is nothing that could be written over."""
    name = "/dev/stdin" if name == "-" else name
    path = Path(url2pathname(name.removeprefix("file://")) if name.startswith("file://") else name).expanduser()
    with contextlib.suppress(OSError):
        if path.is_dir():
            return [path, *path.iterdir()]
        return [path, *_listed(path, NESTED)] if path.suffix.lower() in PLAYLISTS else [path]
    return []


def _listed(playlist: Path, deep: int) -> list[Path]:
    """The files that a playlist lists, and those that playlists in it list."""
    if not deep or not playlist.is_file():
        return []
    with open(playlist, "rb") as file:
        lines = file.read(LONGEST_PLAYLIST).decode("utf-8", "replace").splitlines()
    found = [playlist.parent / url2pathname(line.strip()) for line in lines if line.strip() and not line.startswith("#")]
    nested = [part for path in found if path.suffix.lower() in PLAYLISTS for part in _listed(path, deep - 1)]
    return [*found, *nested]


def _same(one: Path, other: Path) -> bool:
    with contextlib.suppress(OSError, ValueError):  # the latter: a name with a zero byte
        if is_device(one):
            return False  # nothing that is kept can be lost there
        return one.samefile(other) if one.exists() and other.exists() else one.resolve() == other.resolve()
    return False
