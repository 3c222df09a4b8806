"""Which frames of a video make a chunk: a fixed number per second, chosen by presentation time."""

import math
from collections import deque
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

NEAR = 0.025  # s; a frame that follows a target by at most this much may stand for it
PRIMING = 0.15  # s; sound that begins so little before the picture does not make the video a chunk longer
REST = 0.1  # s; what encoders add at the end of a second: so little of a moving picture makes no chunk of its own
SLACK = 1e-4  # s; time stamps closer than this count as equal


class Sampler(Protocol):
    """Takes frames in time order and hands out (chunk index, frames) as soon as a chunk is complete."""

    def feed(self, time: float, frame: Any, duration: float) -> Iterator[tuple[int, list[Any]]]: ...

    def finish(self, end: float) -> Iterator[tuple[int, list[Any]]]: ...

    def skip_to(self, time: float) -> None: ...


class PtsSampler:
    """The frame on screen at start + k / fps, for k = 0, 1, 2, ..., `count` of them per chunk; the first is at `begin`.

    A frame that comes at most 25 ms after the target and is nearer than the one on screen stands in for it. So at every
    constant rate of at least `fps` consecutive samples are distinct frames (25 fps: 0.5 s lies between two frames and the
    later is taken, as the published training reader does), and a picture that stays for seconds never shows what comes after
    it. Below `fps` frames repeat. The last chunk of a video is padded by repeating its last frame. What goes on for at most
    0.1 s behind a chunk has none of its own, unless it is a picture after a pause.
    """

    def __init__(self, fps: float, count: int, start: float = 0.0, begin: float = 0.0):
        self._fps, self._count, self._start = fps, count, start
        late = begin % (count / fps)
        self._late = late if late <= PRIMING else 0.0
        self._next = 0  # number of the next target
        self._shown: tuple[float, Any] | None = None
        self._picked: list[Any] = []
        self._pause = 0.0  # s; between the first frame of the open chunk and the one before

    def feed(self, time: float, frame: Any, duration: float) -> Iterator[tuple[int, list[Any]]]:
        while (target := self._start + self._next / self._fps) <= time + SLACK:
            if not self._picked:
                self._pause = math.inf if self._shown is None else time - self._shown[0]
            yield from self._pick(frame if self._shown is None else self._nearer(target, time, frame))
        self._shown = time, frame

    def finish(self, end: float) -> Iterator[tuple[int, list[Any]]]:
        """Serves the targets before `end`, where the last frame stops being shown, and completes the last chunk."""
        if self._shown is None:
            return
        tolerance = min(end - self._shown[0], NEAR) / 2
        opened = self._next // self._count * self._count  # the first target of the last chunk
        rest = REST if not self._picked or self._pause <= REST else 0.0
        if opened and self._start + opened / self._fps >= end - max(self._late, rest) - tolerance:
            self._picked, self._next = [], opened
            return
        while self._picked or self._start + self._next / self._fps < end - tolerance:
            yield from self._pick(self._shown[1])

    def skip_to(self, time: float) -> None:
        """Before the first frame, and after a gap: forgets the frame on screen and the unfinished chunk; goes on with the chunk
        that holds `time`.
        """
        self._shown, self._picked = None, []
        chunk = int((time - self._start + SLACK) * self._fps / self._count)
        self._next = max(chunk, -(-self._next // self._count)) * self._count

    def _nearer(self, target: float, time: float, frame: Any) -> Any:
        assert self._shown is not None
        shown, on_screen = self._shown
        ahead = time - target
        return frame if ahead <= NEAR and ahead <= target - shown + SLACK else on_screen

    def _pick(self, frame: Any) -> Iterator[tuple[int, list[Any]]]:
        self._picked.append(frame)
        self._next += 1
        if len(self._picked) == self._count:
            picked, self._picked = self._picked, []
            yield self._next // self._count - 1, picked


class PublishedSampler:
    """The frames that StreamingVLM's released reader feeds the model, its repeated frames included.

    A frame's time is where it ends, in float32. A chunk [s, e] includes both bounds; its targets are t0, t0 + 1 / fps, ... up
    to the last frame, t0 being the chunk's first frame; each target takes the first frame at or after it; an odd number of
    targets is made even by repeating the last frame; the last `count` are kept. At integer frame rates (24, 25, 30, ...) each
    chunk but the first holds both boundary frames, so it has one target too many and ends up with the same frame twice; at
    23.976, 29.97 and 59.94 fps it does not. Where the released reader stops (a chunk in which no frame ends) the frame on
    screen is repeated.
    """

    def __init__(self, fps: float, count: int, start: float = 0.0, begin: float = 0.0):
        self._fps, self._count, self._start = fps, count, start
        self._seconds = count / fps
        self._chunk = 0
        self._last: Any = None  # shown again through a chunk in which no frame ends
        self._open()

    def feed(self, time: float, frame: Any, duration: float) -> Iterator[tuple[int, list[Any]]]:
        shown_until = float(np.float32(time + duration))
        while shown_until > self._bound(self._chunk + 1):
            yield from self._close()
        self._see(shown_until, frame)
        if shown_until == self._bound(self._chunk + 1):  # a boundary frame belongs to both chunks
            yield from self._close()
            self._see(shown_until, frame)

    def finish(self, end: float) -> Iterator[tuple[int, list[Any]]]:
        # A boundary frame alone does not start another chunk.
        if self._targets > 1 or (self._targets and self._chunk == 0):
            yield from self._close()

    def skip_to(self, time: float) -> None:
        self._chunk = max(self._chunk, int((time - self._start + SLACK) / self._seconds))
        self._last = None
        self._open()

    def _bound(self, chunk: int) -> float:
        return self._start + chunk * self._seconds

    def _open(self) -> None:
        self._first: float | None = None
        self._targets = 0
        self._kept: deque[Any] = deque(maxlen=self._count)

    def _see(self, time: float, frame: Any) -> None:
        if time < self._bound(self._chunk):
            return
        self._first = time if self._first is None else self._first
        self._last = frame
        while self._first + self._targets / self._fps <= time:
            self._kept.append(frame)
            self._targets += 1

    def _close(self) -> Iterator[tuple[int, list[Any]]]:
        kept, targets, chunk = self._kept, self._targets, self._chunk
        if targets % 2:
            kept.append(kept[-1])
        frames = [*kept, *[self._last] * (self._count - len(kept))]
        self._chunk += 1
        self._open()
        if self._last is not None:
            yield chunk, frames
