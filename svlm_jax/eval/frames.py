"""What may be seen of a video before a moment: second by second, as evenly spread frames, or as the last few frames.

A frame is shown only if it stands on screen before the moment; `NEAR` covers the sampler's freedom to take the next frame.
"""

import dataclasses
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from svlm_jax.errors import SourceError
from svlm_jax.models.resize_rule import PUBLISHED, ResizeRule
from svlm_jax.video.chunk import Chunk
from svlm_jax.video.container import MAX_INPUT_PIXELS
from svlm_jax.video.sampler import NEAR
from svlm_jax.video.source import Source, open_source, picture_span

MARGIN = NEAR + 1e-3  # s
PICTURES = (".jpg", ".jpeg", ".png")
FORMATS = ("JPEG", "PNG")


@dataclasses.dataclass(frozen=True)
class Video:
    """A video file, or a folder of numbered pictures at `rate` per second, at the pixels that the model sees.

    resize: how large the frames reach the model.
    """

    path: Path
    rate: float | None = None
    resize: ResizeRule = PUBLISHED

    def span(self) -> tuple[float, float]:
        """Seconds at which the picture begins and ends, whatever the file says; SourceError when it is missing."""
        if self.path.is_dir():
            return 0.0, len(self._pictures()) / self._rate()
        return picture_span(self.path)

    def open(self, *, fps: float, seconds: float, start: float = 0.0, duration: float | None = None) -> Source:
        spec: Any = self._frames() if self.path.is_dir() else self.path
        return open_source(spec, fps=fps, chunk_seconds=seconds, start=start, duration=duration, resize=self.resize)

    def _pictures(self) -> list[Path]:
        found = sorted(path for path in self.path.iterdir() if path.suffix.lower() in PICTURES)
        if not found:
            raise SourceError(f"{self.path} holds no pictures ({', '.join(PICTURES)}).")
        return found

    def _rate(self) -> float:
        if self.rate is None:
            raise SourceError(f"{self.path} is a folder; a video file was expected.")
        return self.rate

    def _frames(self) -> Iterator[tuple[float, np.ndarray]]:
        rate = self._rate()
        for number, path in enumerate(self._pictures()):
            yield number / rate, _picture(path)


def _picture(path: Path) -> np.ndarray:
    """uint8 RGB (H, W, 3); SourceError for what is no picture, or is larger than a picture of a video may be."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # what is too large is said below
            with Image.open(path, formats=FORMATS) as picture:
                width, height = picture.size
                if width * height > MAX_INPUT_PIXELS:
                    raise Image.DecompressionBombError
                return np.asarray(picture.convert("RGB"))
    except Image.DecompressionBombError:
        raise SourceError(f"{path} declares too many pixels; expected at most {MAX_INPUT_PIXELS}.") from None
    except (OSError, ValueError, SyntaxError, EOFError):
        raise SourceError(f"{path} is no picture that can be decoded; expected JPEG or PNG.") from None


def seconds(video: Video, start: float, end: float, *, fps: float) -> Iterator[Chunk]:
    """The chunks of a stream from `start` on that show nothing at or after `end`; frames of the last one repeat if need be.

    A chunk is a second, or as long as two frames take.
    """
    length = max(1.0, video.resize.grid_frames / fps)
    if end - start <= MARGIN:
        return
    duration = None if math.isinf(end) else end - start
    with video.open(fps=fps, seconds=length, start=start, duration=duration) as source:
        for chunk in source:
            shown = cut(chunk, end)
            if shown is None:
                return
            yield shown


def cut(chunk: Chunk, end: float) -> Chunk | None:
    """The chunk with its frames from `end` on replaced by the last one before; None if there is none before."""
    count = len(chunk.frames)
    times = chunk.start + (chunk.end - chunk.start) * np.arange(count) / count
    seen = int((times + MARGIN <= end).sum())
    if seen == 0:
        return None
    if seen == count:
        return chunk
    return dataclasses.replace(chunk, frames=chunk.frames[np.minimum(np.arange(count), seen - 1)])


def spread(video: Video, start: float, end: float, *, most: int, fps: float) -> Chunk | None:
    """Frames spread evenly over [start, end), both ends included, as one chunk: `fps` a second, at most `most`.

    None if nothing may be seen.
    """
    begin, finish = video.span()
    start, end = max(start, begin), min(end, finish)
    span = end - MARGIN - start
    if span <= 0:
        return None
    count = _whole(min(most, span * fps + 1), video.resize)
    rate = (count - 1) / span
    return _one(video, start, end, count, rate)


def last(video: Video, start: float, end: float, *, count: int, fps: float) -> Chunk | None:
    """The last `count` frames before `end`, 1 / fps apart, as one chunk; fewer when there is less video."""
    begin, finish = video.span()
    start, end = max(start, begin), min(end, finish)
    span = end - MARGIN - start
    if span <= 0:
        return None
    count = _whole(min(count, span * fps + 1), video.resize)
    if (count - 1) / fps > span:  # a shorter stretch than two frames
        return _one(video, start, end, count, (count - 1) / span)
    return _one(video, max(start, end - MARGIN - (count - 1) / fps), end, count, fps)


def _whole(count: float, rule: ResizeRule) -> int:
    """So many frames, in whole temporal grids."""
    return max(1, int(count) // rule.grid_frames) * rule.grid_frames


def _one(video: Video, start: float, end: float, count: int, fps: float) -> Chunk | None:
    with video.open(fps=fps, seconds=count / fps, start=start, duration=count / fps) as source:
        chunk = next(source, None)
    return None if chunk is None else dataclasses.replace(chunk, start=start, end=start + count / fps)
