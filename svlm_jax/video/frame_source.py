"""Frames that somebody else decoded: pushed one by one, or taken from an iterable."""

import collections
import threading
import time
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from svlm_jax.errors import SourceError
from svlm_jax.video.reader import Decoded

FIRST_DURATION = 1 / 25  # s; assumed of a frame with none before it


class FrameSource:
    """A source that a program feeds, e.g. from a camera's callback: `push` frames, `end` it, iterate it elsewhere.

    A live one never makes `push` wait: when the session's decoding thread falls behind by `maxsize` frames the oldest is lost.
    One that is not live makes it wait instead.

    Args:
      live: whether frames come from something that has a clock of its own.
      maxsize: frames held at most.
      clock: stamps frames that come without a time.
    """

    def __init__(self, *, live: bool = True, maxsize: int = 8, clock: Callable[[], float] = time.monotonic):
        self.live = live
        self._maxsize, self._clock = maxsize, clock
        self._frames: collections.deque[tuple[float, np.ndarray]] = collections.deque()
        self._ended = False
        self._changed = threading.Condition()

    def push(self, frame: np.ndarray, time: float | None = None) -> None:
        """Adds a frame, uint8 RGB (H, W, 3), which is copied; `time` is in seconds from any origin and must not go back.

        Raises:
          SourceError: the array is no such frame, or the source has ended.
        """
        item = (self._clock() if time is None else float(time), check_frame(frame).copy())
        with self._changed:
            while not self.live and len(self._frames) >= self._maxsize and not self._ended:
                self._changed.wait()
            if self._ended:
                raise SourceError("A frame was pushed to a source that has ended.")
            if len(self._frames) >= self._maxsize:
                self._frames.popleft()
            self._frames.append(item)
            self._changed.notify_all()

    def end(self) -> None:
        """No more frames come."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[tuple[float, np.ndarray]]:
        while True:
            with self._changed:
                while not self._frames and not self._ended:
                    self._changed.wait()
                if not self._frames:
                    return
                item = self._frames.popleft()
                self._changed.notify_all()
            yield item


def array_frames(pairs: Iterable[tuple[float, np.ndarray]]) -> Iterator[Decoded]:
    """Frames of (seconds, uint8 RGB (H, W, 3)) pairs; time 0 is the first one's.

    Raises:
      SourceError: an item is no such pair, time goes back, or there is none.
    """
    origin: float | None = None
    last, duration = 0.0, FIRST_DURATION
    for item in pairs:
        try:
            stamp, frame = item
            stamp = float(stamp)
        except (TypeError, ValueError):
            raise SourceError(f"A source yielded {type(item).__name__}; expected (seconds, frame) pairs.") from None
        origin = stamp if origin is None else origin
        moment = stamp - origin
        if moment < last:
            raise SourceError(f"A frame at {stamp:g} s came after one at {last + origin:g} s; times must not go back.")
        duration = moment - last or duration
        last = moment
        # The owner may write its next picture into the same array.
        frame = check_frame(frame).copy()
        yield Decoded(moment, duration, frame, frame.shape[:2])
    if origin is None:
        raise SourceError("A source of frames ended without a frame; at least one was expected.")


def check_frame(frame: np.ndarray) -> np.ndarray:
    """The frame itself if it is uint8 (H, W, 3); raises SourceError else."""
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        got = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
        raise SourceError(f"A frame is {got}; expected a NumPy array uint8 (height, width, 3) in RGB.")
    return frame
