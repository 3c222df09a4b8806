"""Matches as a video source: `synthetic:match?seed=3&minutes=10` wherever a source is accepted."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qsl

import numpy as np

from svlm_jax.errors import ConfigError, SourceError
from svlm_jax.streaming.chunk import SourceInfo
from svlm_jax.synthetic.match import SCALE, Match, frames_between_ticks
from svlm_jax.synthetic.world import HEIGHT, TICKS, WIDTH

PARAMETERS: dict[str, Callable[[str], Any]] = {"seed": int, "minutes": float, "scale": int, "fps": int}


@dataclasses.dataclass(frozen=True)
class SyntheticFrames:
    """Frames of a match as (seconds, uint8 RGB (H, W, 3)); without `minutes` they never end."""

    seed: int = 0
    minutes: float | None = None
    scale: int = SCALE
    fps: int = TICKS

    def __post_init__(self) -> None:
        if self.minutes is not None and not 0 < self.minutes < float("inf"):
            raise ConfigError(f"a match of {self.minutes} minutes: expected more than 0.")
        Match(self.seed, self.scale)
        frames_between_ticks(self.fps)

    @property
    def info(self) -> SourceInfo:
        duration = None if self.minutes is None else self._count / self.fps
        size = WIDTH * self.scale, HEIGHT * self.scale
        return SourceInfo("match", "synthetic", *size, fps=float(self.fps), duration=duration)

    @property
    def _count(self) -> int:
        return max(1, round((self.minutes or 0) * 60 * self.fps))

    def __iter__(self) -> Iterator[tuple[float, np.ndarray]]:
        video = Match(self.seed, self.scale).video(self.fps)
        return video if self.minutes is None else itertools.islice(video, self._count)


def open_synthetic(rest: str) -> SyntheticFrames:
    """The frames of `match?seed=3&minutes=10&scale=4&fps=12`, every parameter optional.

    Raises SourceError for what is not understood.
    """
    name, _, query = rest.partition("?")
    if name != "match":
        raise SourceError(f"synthetic:{rest} is not known; expected synthetic:match?seed=3&minutes=10.")
    values: dict[str, Any] = {}
    for key, text in parse_qsl(query, keep_blank_values=True):
        if key not in PARAMETERS:
            raise SourceError(f"synthetic:{rest} has no parameter {key!r}; expected {', '.join(PARAMETERS)}.")
        try:
            values[key] = PARAMETERS[key](text)
        except ValueError:
            raise SourceError(f"synthetic:{rest}: {key}={text!r} is no number.") from None
    try:
        return SyntheticFrames(**values)
    except ConfigError as error:
        raise SourceError(f"synthetic:{rest}: {error}") from None
