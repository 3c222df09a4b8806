"""What every sink can do, and several sinks as one."""

from collections.abc import Callable, Iterable
from typing import Protocol, Self

import numpy as np

from svlm_jax.output.answer import AnswerRecord
from svlm_jax.streaming.caption import Caption


class Sink(Protocol):
    """A place where captions and answers go.

    `write` takes the caption of one chunk and, if the caller has them, the chunk's frames: uint8 (F, 3, height, width) RGB.
    `answer` takes the answer to a question, after the caption of the chunk in or after which it was asked.
    `close` completes the output and may be called twice. All raise OutputError when the place cannot be written. A sink is a
    context manager that closes itself.
    """

    def write(self, caption: Caption, frames: np.ndarray | None = None) -> None: ...

    def answer(self, record: AnswerRecord) -> None: ...

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

    def answer(self, record: AnswerRecord) -> None:
        self._each(lambda sink: sink.answer(record))

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
