"""The video that is being watched, read a second time at full rate and size, with its sound, for its captioned copy."""

import logging
import os
from collections.abc import Iterator
from fractions import Fraction
from typing import Generic, TypeVar

import av
import numpy as np

from svlm_jax.errors import SourceError
from svlm_jax.output.mp4 import Look
from svlm_jax.video.orientation import UPRIGHT, orientation
from svlm_jax.video.reader import FALLBACK_RATE, Decoded, VideoReader

T = TypeVar("T")
logger = logging.getLogger(__name__)

COLOUR = ("colorspace", "color_primaries", "color_trc")
CLOSE = 1e-4  # s; times nearer than this are one


class Original:
    """Pictures and sound of a video file from `start` on (stream seconds); SourceError when there are none.

    Attributes:
      look: size (height, width) of the upright pictures, made even, and how they are shown.
      audio: the sound's stream, None without.
    """

    def __init__(self, path: str | os.PathLike[str], start: float):
        name = os.fspath(path)
        self._reader = VideoReader(f"file:{name}", name, start=max(0.0, start), listen=True)
        self._start = start
        self._frames = _Peeking(self._decoded(start - CLOSE))
        if self._frames.head is None:
            self._reader.close()
            raise SourceError(f"{name} has no picture after {start:.1f} s.")
        self.audio = self._reader.sound
        frame = _frame(self._frames.head)
        self._stored = _even(frame.height), _even(frame.width)
        self.look = self._look(frame)

    def pictures(self, end: float) -> Iterator[tuple[np.ndarray, float, float]]:
        """The pictures before `end` that were not asked for yet, as `planes`, with time and duration."""
        while (item := self._frames.head) is not None and item.time < end - CLOSE:
            yield planes(_frame(item), self._stored), item.time, item.duration
            self._frames.advance()

    def sound(self, end: float) -> Iterator[tuple[av.Packet, float]]:
        """The packets of sound before `end` that were read with the pictures and not asked for yet, with their time."""
        heard = self._reader.heard
        while heard and heard[0][1] < end - CLOSE:
            packet, time = heard.popleft()
            if time >= self._start - CLOSE:
                yield packet, time

    def close(self) -> None:
        self._reader.close()

    def _decoded(self, start: float) -> Iterator[Decoded]:
        try:
            yield from (item for item in self._reader if item.time >= start)
        except SourceError as error:  # whoever watches the video says so too; the copy ends here
            logger.debug("captioned copy: %s", error)

    def _look(self, frame: av.VideoFrame) -> Look:
        way = orientation(frame)
        aspect = self._reader.aspect or Fraction(1)
        return Look(
            size=way.size(*self._stored),
            rate=self._reader.fps or FALLBACK_RATE,
            aspect=1 / aspect if way.transposed else aspect,
            colour={"color_range": av.video.reformatter.ColorRange.MPEG} | {f: int(getattr(frame, f)) for f in COLOUR},
        )


class _Peeking(Generic[T]):
    """An iterator whose next item, `head`, can be looked at; None at the end."""

    def __init__(self, items: Iterator[T]):
        self._items = items
        self.advance()

    def advance(self) -> None:
        self.head: T | None = next(self._items, None)


def planes(frame: av.VideoFrame, stored: tuple[int, int]) -> np.ndarray:
    """The upright picture: uint8 (height * 3 / 2, width), PyAV's yuv420p array. stored: even (height, width) before turning.

    In video range. A picture of odd size has its last row or column repeated; one whose size changed is stretched.
    """
    height, width = stored
    way = orientation(frame)
    if (_even(frame.height), _even(frame.width)) == stored != (frame.height, frame.width):
        pad = ((0, 0), (0, height - frame.height), (0, width - frame.width))
        full = frame.reformat(format="yuv444p", dst_color_range="MPEG").to_ndarray()  # (3, height, width)
        frame = av.VideoFrame.from_ndarray(np.pad(full, pad, mode="edge").astype(np.uint8, copy=False), format="yuv444p")
    array = frame.reformat(width=width, height=height, format="yuv420p", dst_color_range="MPEG").to_ndarray()
    if way == UPRIGHT:
        return array
    luma, chroma = array[:height], array[height:].reshape(2, height // 2, width // 2)
    parts = [way.apply(luma), *way.apply(chroma, axes=(1, 2))]
    return np.concatenate([part.ravel() for part in parts]).reshape(-1, way.size(height, width)[1])


def _frame(item: Decoded) -> av.VideoFrame:
    assert isinstance(item.frame, av.VideoFrame)
    return item.frame


def _even(side: int) -> int:
    return side + side % 2
