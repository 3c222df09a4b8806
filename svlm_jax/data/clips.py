"""Pixels of an annotated clip: the frames that a stream of the same video would show the model, one clip a turn."""

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from svlm_jax.data.annotations import Annotation
from svlm_jax.data.chunks import EPSILON, ChunkSettings
from svlm_jax.errors import DataError
from svlm_jax.models.resize_rule import PUBLISHED, ResizeRule
from svlm_jax.video.source import open_source

STRETCH = 1.1  # how far a picture's sides may change against each other; beyond that it gets black bars
MISSING = 1  # turns that a clip may lack at its end: transcripts run a little over


def nearest(size: tuple[int, int], sizes: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """The one of `sizes` that suits a picture of `size` (height, width) best: itself, else one of its proportions."""

    def differs(other: tuple[int, int]) -> tuple[float, float]:
        high, wide = math.log(other[0] / size[0]), math.log(other[1] / size[1])
        return abs(high - wide) + abs(high + wide) / 4, -high

    return min(sizes, key=differs)


def inside(size: tuple[int, int], box: tuple[int, int], factor: int) -> tuple[int, int]:
    """How large a picture of `size` (height, width) is drawn in a `box`: as large as that, if it is hardly stretched then.

    Otherwise it keeps its proportions, but for rounding to multiples of `factor`.
    """
    high, wide = box[0] / size[0], box[1] / size[1]
    if max(high, wide) <= STRETCH * min(high, wide):
        return box
    rows, columns = (max(1, round(side * min(high, wide) / factor)) * factor for side in size)
    return min(rows, box[0]), min(columns, box[1])


def letterbox(clips: np.ndarray, box: tuple[int, int]) -> np.ndarray:
    """Frames (..., height, width) in the middle of a black `box` (height, width)."""
    bars = [(more // 2, more - more // 2) for more in (box[0] - clips.shape[-2], box[1] - clips.shape[-1])]
    return np.pad(clips, [*((0, 0),) * (clips.ndim - 2), *bars]) if any(map(any, bars)) else clips


def frame_count(annotation: Annotation, settings: ChunkSettings) -> int:
    """Frames of a clip."""
    return max(1, int((annotation.end - annotation.start) / settings.chunk_seconds + EPSILON)) * settings.frames


def source_size(path: str | Path) -> tuple[int, int]:
    """(height, width) of a video as players show it. SourceError when it cannot be opened."""
    with open_source(path, fps=2.0) as source:
        return source.info.height, source.info.width


def read_clip(path: str | Path, annotation: Annotation, settings: ChunkSettings, resize: ResizeRule = PUBLISHED) -> np.ndarray:
    """Frames of a clip, uint8 (S, F, 3, height, width); before the picture begins, its first frame.

    resize: how large they are; its bound for a clip holds for all of them together.

    Raises:
      SourceError: the video is missing or cannot be decoded.
      DataError: it ends before the clip does.
    """
    wanted = frame_count(annotation, settings) // settings.frames
    source = open_source(
        path,
        fps=settings.fps,
        chunk_seconds=settings.chunk_seconds,
        start=annotation.start,
        duration=wanted * settings.chunk_seconds,
        resize=resize.for_clip(wanted * settings.frames),
    )
    with source:
        chunks = list(source)
    clips = [chunk.frames for chunk in chunks]
    if chunks:
        late = round((chunks[0].start - annotation.start) / settings.chunk_seconds)
        clips = [np.stack([clips[0][0]] * settings.frames)] * late + clips
    if len(clips) < wanted - MISSING or not clips:
        raise DataError(
            f"{path} ends {wanted - len(clips)} s before its clip from {annotation.start:g} to {annotation.end:g} s does."
        )
    clips += [np.stack([clips[-1][-1]] * settings.frames)] * (wanted - len(clips))
    return np.stack(clips)
