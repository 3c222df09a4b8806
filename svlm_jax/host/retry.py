"""Trying again: the one loop for servers that are busy, streams that break off, and processes that die."""

import dataclasses
import random
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Backoff:
    """Waiting times between attempts: doubled from `first` to `longest` seconds, each spread by the share `jitter`.

    After `attempts` failures in a row nothing more is tried; None: never.
    """

    first: float = 0.5
    longest: float = 30.0
    jitter: float = 0.25
    attempts: int | None = 10

    def delay(self, failures: int, spread: float | None = None) -> float:
        """Seconds to wait after `failures` (1, 2, ...) failures in a row; `spread` in [-1, 1] replaces the random one."""
        spread = random.uniform(-1, 1) if spread is None else spread  # not for cryptography
        return min(self.longest, self.first * 2 ** min(failures - 1, 30)) * (1 + self.jitter * spread)


class Again(Exception):
    """What failed may succeed when it is tried again, after at least `wait` seconds."""

    def __init__(self, why: str, wait: float = 0.0) -> None:
        super().__init__(why)
        self.wait = wait


class GaveUp(Exception):
    """Every attempt failed, or nobody wants the result any more (`stopped`); the text is that of the last failure."""

    def __init__(self, last: Again, failures: int, stopped: bool) -> None:
        super().__init__(str(last))
        self.failures, self.stopped = failures, stopped


class Retry:
    """Tries something until it does not raise `Again`, ever more slowly; counts failures in a row over all its calls.

    Args:
      wait: sleeps so many seconds; True when nothing more is to be tried.
      on_failure: told why, how many failures in a row there are, and the seconds until the next attempt.
    """

    def __init__(
        self,
        backoff: Backoff,
        *,
        wait: Callable[[float], bool | None] = time.sleep,
        on_failure: Callable[[str, int, float], None] = lambda why, failures, delay: None,
    ) -> None:
        self._backoff, self._wait, self._on_failure = backoff, wait, on_failure
        self.failures = 0

    def __call__(self, attempt: Callable[[], T], *, after: Again | None = None) -> T:
        """What the attempt returns in the end. after: a failure that has happened already. Raises GaveUp."""
        failure = after
        while True:
            if failure is not None:
                self._pause(failure)
            try:
                return attempt()
            except Again as error:
                failure = error

    def succeeded(self) -> None:
        """The next failure is the first again."""
        self.failures = 0

    def _pause(self, failure: Again) -> None:
        self.failures += 1
        most = self._backoff.attempts
        if most is not None and self.failures > most:
            raise GaveUp(failure, self.failures, stopped=False) from None
        delay = max(self._backoff.delay(self.failures), failure.wait)
        self._on_failure(str(failure), self.failures, delay)
        if self._wait(delay):
            raise GaveUp(failure, self.failures, stopped=True) from None
