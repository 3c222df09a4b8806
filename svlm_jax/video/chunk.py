"""What a video source hands to a session: chunks of frames, and what is known about the stream."""

import dataclasses
import math

import numpy as np


@dataclasses.dataclass(frozen=True)
class Chunk:
    """One chunk of video, usually a second.

    Attributes:
      frames: uint8 (F, 3, height, width) RGB of the model's size, F = fps * chunk_seconds. The last chunk of a video is always
        full: its last frame is repeated.
      start, end: stream time in seconds; end = start + chunk_seconds unless chunks were merged.
      read_ms: host milliseconds spent on decoding and resizing.
      lag: seconds behind live when handed out; 0 for sources that wait for the session.
      dropped: seconds of stream time that the session does not see: skipped between the previous chunk and this one, or merged
        away inside this one.
      source_size: (height, width) of the upright picture before resizing.
    """

    frames: np.ndarray
    start: float
    end: float
    read_ms: float = 0.0
    lag: float = 0.0
    dropped: float = 0.0
    source_size: tuple[int, int] = (0, 0)


@dataclasses.dataclass(frozen=True)
class SourceInfo:
    """What is known about a source when it is opened.

    Attributes:
      name: the path or URL, credentials masked.
      kind: "file", "pipe", "http", "rtsp" (or another network scheme), "webcam" or "frames".
      width, height: of the upright picture in pixels, 0 if unknown.
      fps: average rate in frames per second, None if unknown.
      duration: seconds from the first picture to the last, None if live or unknown.
      live: whether the source has a clock of its own and cannot wait.
      begin: stream time of the first picture in seconds; above 0 where the sound begins first.
    """

    name: str
    kind: str
    width: int = 0
    height: int = 0
    fps: float | None = None
    duration: float | None = None
    live: bool = False
    begin: float = 0.0

    @property
    def end(self) -> float | None:
        """Stream time in seconds at which the last picture ends, None if live or unknown."""
        return None if self.duration is None else self.begin + self.duration


def merge(parts: list[Chunk], seconds: float) -> Chunk:
    """One chunk in place of several: as many frames as one has, spread evenly over the whole span; the others are not seen.

    Frames of another size than the newest chunk's are left out, so the result has one size.
    """
    newest = parts[-1]
    if len(parts) == 1:
        return newest
    shape, count = newest.frames.shape, len(newest.frames)
    fitting = [part for part in parts if part.frames.shape == shape]
    frames = [frame for part in fitting for frame in part.frames]
    times = np.array([part.start + (part.end - part.start) * i / count for part in fitting for i in range(count)])
    start, end = parts[0].start, newest.end
    targets = start + (end - start) * np.arange(count) / count
    picked = [frames[int(np.abs(times - target).argmin())] for target in targets]
    return dataclasses.replace(
        newest, frames=np.stack(picked), start=start, dropped=end - start - seconds, read_ms=sum(part.read_ms for part in parts)
    )


def split(chunk: Chunk, second: float) -> tuple[Chunk, Chunk]:
    """The frames of a chunk that stand before `second`, and those from it on; either half may have none."""
    count, span = len(chunk.frames), chunk.end - chunk.start
    first = min(max(math.ceil((second - chunk.start) / span * count - 1e-6), 0), count) if count else 0
    middle = chunk.start + span * first / max(count, 1)
    return (
        dataclasses.replace(chunk, frames=chunk.frames[:first], end=middle),
        dataclasses.replace(chunk, frames=chunk.frames[first:], start=middle),
    )
