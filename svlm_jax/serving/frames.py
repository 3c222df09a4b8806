"""From the pictures that arrive for one stream to the chunks that wait for the device, without a thread of its own.

push(picture, seconds) ─> sampler (the frame on screen at each target time) ─> chunk ─> [ waiting | waiting ]
                                                                                  late: dropped, or merged into the next
"""

import collections
import dataclasses
import itertools
from typing import Literal

import numpy as np

from svlm_jax.errors import RequestError
from svlm_jax.video.chunk import Chunk, merge
from svlm_jax.video.resize import array_pixels
from svlm_jax.video.sampler import PtsSampler

Late = Literal["drop", "merge"]
JUMP = 5.0  # s; a client's clock that leaps further than this, either way, is taken to have been set anew
MERGED_PARTS = 16  # chunks at most that one merged chunk chooses its frames from


@dataclasses.dataclass(frozen=True)
class Ack:
    """What became of a picture. pending: chunks that wait. dropped: chunks lost so far because the device was busy."""

    pending: int
    dropped: int


class ClientClock:
    """A client's time stamps as stream time, which never goes back: seconds since its first picture.

    A stamp that goes back, or leaps by more than `JUMP`, sets the client's clock anew: the stream goes on one frame later.
    """

    def __init__(self, frame_seconds: float, begin: float = 0.0) -> None:
        self._step, self._now = frame_seconds, begin
        self._offset: float | None = None

    def read(self, stamp: float) -> float:
        if self._offset is None:
            self._offset = self._now - stamp
        moment = stamp + self._offset
        if not self._now <= moment <= self._now + JUMP:
            moment = self._now + self._step
            self._offset = moment - stamp
        self._now = moment
        return moment


class FrameAssembler:
    """Makes chunks of `count` frames at `fps` from pictures as they come, resized to `size`.

    Args:
      size: (height, width) in pixels that the model sees.
      begin: stream time of the first picture, in seconds; a resumed stream goes on where it stood.
    """

    def __init__(self, *, fps: float, count: int, size: tuple[int, int], begin: float = 0.0) -> None:
        self.size, self.seconds, self._begin = size, count / fps, begin
        self._sampler = PtsSampler(fps, count, begin)
        self._clock = ClientClock(1 / fps, begin)

    def push(self, picture: np.ndarray, stamp: float) -> list[Chunk]:
        """The chunks that a picture completes. picture: uint8 RGB (H, W, 3); stamp: seconds on the client's clock."""
        if not np.isfinite(stamp):
            raise RequestError("bad_time", f"a time stamp of {stamp} s: expected a finite number of seconds", param="time")
        moment = self._clock.read(stamp)
        small = array_pixels(picture, self.size)
        # No more chunks than one jump of the clock can span: the sampler repeats a frame for what was not sent.
        complete = itertools.islice(self._sampler.feed(moment, small, 0.0), int(JUMP / self.seconds) + 2)
        return [self._chunk(index, frames, picture.shape[:2]) for index, frames in complete]

    def _chunk(self, index: int, frames: list[np.ndarray], source: tuple[int, ...]) -> Chunk:
        start = self._begin + index * self.seconds
        return Chunk(np.stack(frames), start, start + self.seconds, source_size=(source[0], source[1]))


class WaitingChunks:
    """Chunks of one stream that the device has not begun, at most `most`; the policy decides about one too many.

    `deadline` of a chunk: when the next one is complete, i.e. one chunk's length after it arrived.
    """

    def __init__(self, late: Late, *, most: int = 2) -> None:
        self._late, self._most = late, most
        self._waiting: collections.deque[tuple[list[Chunk], float]] = collections.deque()
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, chunk: Chunk, deadline: float) -> None:
        self._waiting.append(([chunk], deadline))
        while len(self._waiting) > self._most:
            older, _ = self._waiting.popleft()
            self.dropped += 1
            if self._late == "merge":
                parts, newer_deadline = self._waiting[0]
                self._waiting[0] = ((older + parts)[-MERGED_PARTS:], newer_deadline)

    @property
    def deadline(self) -> float | None:
        """Of the oldest; None when nothing waits."""
        return self._waiting[0][1] if self._waiting else None

    def get(self) -> tuple[Chunk, float]:
        """The oldest chunk and its deadline."""
        parts, deadline = self._waiting.popleft()
        return merge(parts, parts[-1].end - parts[-1].start), deadline
