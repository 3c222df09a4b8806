"""What every sink can do, and several sinks as one."""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np

from svlm_jax.errors import SinkError
from svlm_jax.streaming.caption import Caption


class Sink(Protocol):
    """A place where captions go.

    `write` takes the caption of one chunk and, if the caller has them, the chunk's frames: uint8 (F, 3, height, width) RGB.
    `close` completes the output and may be called twice. Both raise SinkError when the place cannot be written. A sink is a
    context manager that closes itself.
    """

    def write(self, caption: Caption, frames: np.ndarray | None = None) -> None: ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...


class Closing:
    """The context manager half of a sink."""

    def close(self) -> None:
        """Nothing to complete."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class SinkGroup(Closing):
    """Several sinks as one. Each is served, and closed, even when others fail; then the first failure is raised."""

    def __init__(self, sinks: Iterable[Sink]):
        self.sinks = tuple(sinks)

    def write(self, caption: Caption, frames: np.ndarray | None = None) -> None:
        self._each(lambda sink: sink.write(caption, frames))

    def close(self) -> None:
        self._each(lambda sink: sink.close())

    def _each(self, do: Callable[[Sink], None]) -> None:
        failures: list[BaseException] = []
        for sink in self.sinks:
            try:
                do(sink)
            except BaseException as error:  # an interrupt too must not leave the other files open
                failures.append(error)
        if failures:
            raise failures[0]


def one_sentence(error: BaseException) -> str:
    """What the system says about a failed write, without its number and path: "No space left on device"."""
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).rstrip(".")


@contextlib.contextmanager
def writing(path: Path | str, *kinds: type[BaseException]) -> Iterator[None]:
    """Turns failures of the system (and of the given kinds) into a SinkError that names the file."""
    failures: tuple[type[BaseException], ...] = (OSError, *kinds)
    try:
        yield
    except failures as error:
        raise SinkError(f"{path} cannot be written: {one_sentence(error)}.") from error


def check_target(path: str | os.PathLike[str]) -> Path:
    """The path of a file to write; SinkError when it cannot become one."""
    path = Path(path)
    if path.is_dir():
        raise SinkError(f"{path} is a folder; the name of a file was expected.")
    if not path.parent.is_dir():
        raise SinkError(f"{path} cannot be written: the folder {path.parent} does not exist.")
    return path


def check_distinct(paths: Iterable[Path], source: Any) -> None:
    """SinkError when two outputs are one file, or an output is the video that is being read."""
    seen = {Path(source).resolve(): "the video itself"} if isinstance(source, str | os.PathLike) else {}
    for path in paths:
        real = path.resolve()
        if real in seen:
            raise SinkError(f"{path} cannot be written: it is {seen[real]}; expected a file of its own.")
        seen[real] = "another output too"
