"""The bounded hand-over of chunks from the decoding thread to the session, and what happens when the session is late."""

import collections
import dataclasses
import math
import threading
from collections.abc import Callable
from typing import Literal

from svlm_jax.video.chunk import Chunk, merge

Behind = Literal["drop", "merge", "wait"]
MERGED_PARTS = 16  # a merged span remembers at most this many chunks to choose frames from


class ChunkQueue:
    """A queue of at most `buffer` chunks, and one that the decoder holds, with a policy for sessions that are late.

    A chunk is due when its last moment has passed on the stream's clock; without a clock everything is due at once and the
    decoder waits for the session. Once a newer chunk is due too, the older is dropped, or merged into it, or kept ("wait").

        decoder -- put --> [ not yet due | due | due ] -- get --> session
                                                 ^ drop: gone; merge: its frames join the next

    Args:
      buffer: chunks.
      seconds: length of a chunk.
      clock: reads wall time in seconds; None for as fast as possible.
    """

    def __init__(self, *, buffer: int, seconds: float, behind: Behind = "wait", clock: Callable[[], float] | None = None):
        self._buffer, self._seconds, self._clock = buffer, seconds, clock
        self._sheds = clock is not None and behind != "wait"
        self._merges = behind == "merge"
        self._entries: collections.deque[list[Chunk]] = collections.deque()  # chunks that leave together
        self._origin: float | None = None  # clock reading at stream time 0
        self._handed: float | None = None  # end of the chunk handed out last
        self._closed = self._ended = self._held = False
        self._error: Exception | None = None
        self._changed = threading.Condition()

    def __len__(self) -> int:
        """Chunks held at the moment."""
        with self._changed:
            return sum(len(entry) for entry in self._entries)

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def held(self) -> bool:
        """Whether somebody looked at the first chunk and nobody has taken one yet."""
        return self._held

    def begin(self, origin: float) -> None:
        """Stream time 0 is at `origin` on the clock. Without this call the first chunk begins with the first `get`."""
        with self._changed:
            self._origin = origin
            self._changed.notify_all()

    def wait_closed(self, seconds: float) -> bool:
        """Sleeps so long, less if the session closes it meanwhile; whether it is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed, seconds)
            return self._closed

    def put(self, chunk: Chunk) -> bool:
        """Hands a chunk over, waiting while the queue is full; False once the session has closed it."""
        with self._changed:
            self._entries.append([chunk])
            self._changed.notify_all()
            while not self._closed:
                self._shed()
                if len(self._entries) <= self._buffer:
                    break
                wait = self._until_due(self._entries[1]) if self._sheds else math.inf
                self._changed.wait(None if math.isinf(wait) else max(wait, 0.0))
            return not self._closed

    def finish(self, error: Exception | None = None) -> None:
        """No more chunks come; `error` is raised in the session after the last of them."""
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def close(self) -> None:
        """The session is gone: `put` returns False from now on and `get` None."""
        with self._changed:
            self._closed = True
            self._entries.clear()
            self._changed.notify_all()

    def peek(self) -> Chunk | None:
        """The first chunk, due or not, which stays where it is; None when there is none. Raises what stopped the decoder."""
        with self._changed:
            self._held = True
            self._changed.wait_for(lambda: self._entries or self._ended or self._closed)
            if not self._entries and self._error is not None:
                error, self._error = self._error, None
                raise error
            return self._entries[0][0] if self._entries else None

    def restart(self, origin: float) -> None:
        """Forgets what waits: the stream begins anew, with its time 0 at `origin` on the clock."""
        with self._changed:
            self._entries.clear()
            self._origin = origin
            self._changed.notify_all()

    def get(self) -> Chunk | None:
        """The next chunk as soon as it is due, None at the end; raises what stopped the decoder."""
        with self._changed:
            if self._held and self._origin is not None and not self._ended:  # live: what was looked at is old by now
                self._entries.clear()
            self._held = False
            while not self._closed:
                if self._entries:
                    if self._origin is None and self._clock is not None:
                        self._origin = self._clock() - self._entries[0][0].start
                        self._changed.notify_all()
                    self._shed()
                    wait = self._until_due(self._entries[0])
                    if wait <= 0:
                        return self._hand_out(self._entries.popleft())
                    self._changed.wait(wait)
                elif self._ended:
                    error, self._error = self._error, None
                    if error is not None:
                        raise error
                    return None
                else:
                    self._changed.wait()
            return None

    def _hand_out(self, entry: list[Chunk]) -> Chunk:
        chunk = merge(entry, self._seconds)
        skipped = 0.0 if self._handed is None else max(0.0, chunk.start - self._handed)
        lag = 0.0 if self._clock is None else max(0.0, -self._until_due(entry))
        self._handed = chunk.end
        self._changed.notify_all()
        return dataclasses.replace(chunk, lag=lag, dropped=round(skipped + chunk.dropped, 6))

    def _until_due(self, entry: list[Chunk]) -> float:
        """Seconds until the last moment of the entry has passed; infinite before stream time 0 is known."""
        if self._clock is None:
            return 0.0
        return math.inf if self._origin is None else entry[-1].end - (self._clock() - self._origin)

    def _shed(self) -> None:
        """As long as a newer entry is due too, the oldest goes. What was due before the first `get` is no loss."""
        while self._sheds and len(self._entries) > 1 and self._until_due(self._entries[1]) <= 0:
            older = self._entries.popleft()
            if self._merges and self._handed is not None:
                parts = older + self._entries[0]
                if len(parts) > MERGED_PARTS:  # the one whose neighbours are closest is missed least
                    del parts[min(range(1, len(parts) - 1), key=lambda i: parts[i + 1].start - parts[i - 1].start)]
                self._entries[0] = parts
            self._changed.notify_all()
