"""Ctrl-C and SIGTERM: leave at once while nothing is at stake, else after the second in hand is finished."""

import contextlib
import signal
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import TypeVar

T = TypeVar("T")


class Interrupted(BaseException):
    """The user or the system asked to stop; not an Exception, so that nobody swallows it by accident."""

    def __init__(self, number: int):
        self.name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        self.exit_code = 128 + number
        super().__init__(self.name)


BOTH = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def interruptible(signals: Sequence[signal.Signals] = BOTH) -> Iterator[None]:
    """While active, `signals` raise Interrupted in the main thread."""

    def leave(number: int, _frame: FrameType | None) -> None:
        raise Interrupted(number)

    with _handling(leave, signals):
        yield


class Stoppable(Iterator[T]):
    """An iterator that simply ends when a signal asks to stop, so that whoever reads it finishes what it has in hand.

    A signal ends a wait for the next item at once; one that comes at another time takes effect at the next item. A second
    signal raises Interrupted wherever the program is. Use as a context manager; `interrupted` then says what came, if so.
    """

    def __init__(self, items: Iterator[T]):
        self.interrupted: Interrupted | None = None
        self._items = items
        self._waiting = False

    def __next__(self) -> T:
        if self.interrupted:
            raise StopIteration
        self._waiting = True
        try:
            return next(self._items)
        except Interrupted:
            raise StopIteration from None
        finally:
            self._waiting = False

    def __enter__(self) -> "Stoppable[T]":
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(_handling(self._signalled))
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def _signalled(self, number: int, _frame: FrameType | None) -> None:
        again = self.interrupted is not None
        self.interrupted = Interrupted(number)
        if again or self._waiting:
            raise self.interrupted


@contextlib.contextmanager
def _handling(handler: object, signals: Sequence[signal.Signals] = BOTH) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in signals}  # type: ignore[arg-type]
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
