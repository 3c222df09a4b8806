"""Several sources side by side: which of them have a chunk now. One that is slow, or gone, holds up none of the others."""

import contextlib
import dataclasses
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Self

from svlm_jax.video.chunk import Chunk
from svlm_jax.video.source import Source

GRACE = 0.1  # s that a chunk waits for those of other sources, so that they run together


@dataclasses.dataclass(frozen=True)
class Ended:
    """The end of a source. error: what ended it early; None at its proper end."""

    error: Exception | None = None


class Rounds(Iterator[dict[str, Chunk | Ended]]):
    """Iterates over what has come from several sources, by name, until all of them have ended. A context manager.

    A round has one chunk, or the end, of each source that had one within `grace` seconds of the first. A thread waits for
    each source, which is asked for its next chunk only when a round begins: what a late session drops stays decided there.
    """

    def __init__(self, sources: Mapping[str, Source], *, grace: float = GRACE) -> None:
        self._sources, self._grace = dict(sources), grace
        self._asked: set[str] = set()
        self._come: dict[str, tuple[Chunk | Ended, float]] = {}  # and when
        self._closed = False
        self._changed = threading.Condition()
        for name, source in self._sources.items():
            threading.Thread(target=self._read, args=(name, source), name=f"svlm-source-{name}", daemon=True).start()

    def __next__(self) -> dict[str, Chunk | Ended]:
        with self._changed:
            if not self._sources:
                raise StopIteration
            self._asked = self._sources.keys() - self._come.keys()
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._come)
            self._changed.wait_for(lambda: len(self._come) == len(self._sources), self._grace)
            come, self._come = self._come, {}
            for name, (item, _) in come.items():
                if isinstance(item, Ended):
                    del self._sources[name]
        now = time.monotonic()
        return {name: _waited(item, now - since) for name, (item, since) in come.items()}

    def leave(self, name: str) -> None:
        """Takes no more from a source, and closes it."""
        with self._changed:
            source = self._sources.pop(name, None)
            self._come.pop(name, None)
            self._changed.notify_all()
        if source is not None:
            source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        with contextlib.ExitStack() as stack:
            for source in self._sources.values():
                stack.callback(source.close)

    def _read(self, name: str, source: Source) -> None:
        item: Chunk | Ended
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or name not in self._sources or name in self._asked)
                if self._closed or name not in self._sources:
                    return
                self._asked.discard(name)
            try:
                chunk = next(source, None)
                item = Ended() if chunk is None else chunk
            except Exception as error:  # of this source alone, whatever it is
                item = Ended(error)
            with self._changed:
                if name in self._sources:
                    self._come[name] = item, time.monotonic()
                    self._changed.notify_all()
            if isinstance(item, Ended):
                return


def _waited(item: Chunk | Ended, seconds: float) -> Chunk | Ended:
    """A chunk that came while the others were computed is that much later; without a clock of its own, none is late."""
    if isinstance(item, Ended) or not item.lag:
        return item
    return dataclasses.replace(item, lag=item.lag + seconds)
