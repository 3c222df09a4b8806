"""Drawn streams as a video source: `synthetic:match?seed=3&minutes=10`, `synthetic:facts?seed=3`, wherever one is accepted."""

import abc
import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qsl

import numpy as np

from svlm_jax.errors import ConfigError, SourceError
from svlm_jax.synthetic.facts import EVERY, Facts
from svlm_jax.synthetic.facts_render import SIDE
from svlm_jax.synthetic.match import SCALE, Match, frames_between_ticks
from svlm_jax.synthetic.world import HEIGHT, TICKS, WIDTH
from svlm_jax.video.chunk import SourceInfo


@dataclasses.dataclass(frozen=True)
class Frames(abc.ABC):
    """Frames of a drawn stream as (seconds, uint8 RGB (H, W, 3)); without `minutes` they never end."""

    seed: int = 0
    minutes: float | None = None
    fps: int = TICKS

    def __post_init__(self) -> None:
        if self.minutes is not None and not 0 < self.minutes < float("inf"):
            raise ConfigError(f"a stream of {self.minutes} minutes: expected more than 0.")
        if self.fps < 1:
            raise ConfigError(f"a stream of {self.fps} frames a second: expected 1 or more.")

    @abc.abstractmethod
    def video(self) -> Iterator[tuple[float, np.ndarray]]:
        """The frames without end."""

    def __iter__(self) -> Iterator[tuple[float, np.ndarray]]:
        return self.video() if self.minutes is None else itertools.islice(self.video(), self._count)

    @property
    def _count(self) -> int:
        return max(1, round((self.minutes or 0) * 60 * self.fps))

    def _info(self, name: str, width: int, height: int) -> SourceInfo:
        duration = None if self.minutes is None else self._count / self.fps
        return SourceInfo(name, "synthetic", width, height, fps=float(self.fps), duration=duration)


@dataclasses.dataclass(frozen=True)
class MatchFrames(Frames):
    """Frames of a match, at `scale` pixels a unit."""

    scale: int = SCALE

    def __post_init__(self) -> None:
        super().__post_init__()
        Match(self.seed, self.scale)
        frames_between_ticks(self.fps)

    @property
    def info(self) -> SourceInfo:
        return self._info("match", WIDTH * self.scale, HEIGHT * self.scale)

    def video(self) -> Iterator[tuple[float, np.ndarray]]:
        return Match(self.seed, self.scale).video(self.fps)


@dataclasses.dataclass(frozen=True)
class FactFrames(Frames):
    """Frames of a stream of facts, one every `every` seconds."""

    every: float = EVERY

    def __post_init__(self) -> None:
        super().__post_init__()
        Facts(self.seed, self.every)

    @property
    def info(self) -> SourceInfo:
        return self._info("facts", SIDE, SIDE)

    def video(self) -> Iterator[tuple[float, np.ndarray]]:
        facts = Facts(self.seed, self.every)
        return ((i / self.fps, facts.picture(i / self.fps)) for i in itertools.count())


Parameters = dict[str, Callable[[str], Any]]
SHARED: Parameters = {"seed": int, "minutes": float, "fps": int}
STREAMS: dict[str, tuple[type[Frames], Parameters]] = {
    "match": (MatchFrames, {**SHARED, "scale": int}),
    "facts": (FactFrames, {**SHARED, "every": float}),
}


def open_synthetic(rest: str) -> Frames:
    """The frames of `match?seed=3&minutes=10&scale=4&fps=12` or `facts?seed=3&every=30`, every parameter optional.

    Raises SourceError for what is not understood.
    """
    name, _, query = rest.partition("?")
    if name not in STREAMS:
        raise SourceError(f"synthetic:{rest} is not known; expected synthetic:match?seed=3&minutes=10, or synthetic:facts.")
    frames, parameters = STREAMS[name]
    values: dict[str, Any] = {}
    for key, text in parse_qsl(query, keep_blank_values=True):
        if key not in parameters:
            raise SourceError(f"synthetic:{rest} has no parameter {key!r}; expected {', '.join(parameters)}.")
        try:
            values[key] = parameters[key](text)
        except ValueError:
            raise SourceError(f"synthetic:{rest}: {key}={text!r} is no number.") from None
    try:
        return frames(**values)
    except ConfigError as error:
        raise SourceError(f"synthetic:{rest}: {error}") from None
