"""A match: from a seed, without end, second by second; as frames, as truth, as a video file with its annotations."""

import dataclasses
import io
import itertools
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import av.error
import numpy as np

from svlm_jax.data.annotations import Word, write_annotations
from svlm_jax.data.windows import Overlapped, overlapped
from svlm_jax.errors import ConfigError
from svlm_jax.host.files import writing
from svlm_jax.synthetic.commentary import line, timed
from svlm_jax.synthetic.render import Renderer
from svlm_jax.synthetic.world import TICKS, Event, Tick, ticks

SCALE = 4  # pixels a unit: 448 x 336
FPS = 12
QUIET = Overlapped(words_per_second=0.0)  # a match has about one word a second, half of what the published filter asks for


@dataclasses.dataclass(frozen=True, slots=True)
class Second:
    """One second of a match, and the truth about it.

    Attributes:
      number: it lasts from `number` to `number` + 1 s.
      ticks: the two moments that a model with two frames a second sees; `after` is the next one.
      event: what happens, None if nothing does.
    """

    number: int
    ticks: tuple[Tick, ...]
    after: Tick
    event: Event | None

    @property
    def line(self) -> str:
        """What is to be said; "" is silence."""
        return line(self.event)

    @property
    def words(self) -> tuple[Word, ...]:
        """The same, every word with its time in seconds of the match."""
        return timed(self.event, self.number)

    @property
    def score(self) -> tuple[int, int]:
        """(red, blue) at the end of the second."""
        return self.ticks[-1].score

    @property
    def last(self) -> str:
        """The team that scored last in this game, or "nobody"."""
        return self.ticks[-1].last

    @property
    def game(self) -> int:
        return self.ticks[-1].game


@dataclasses.dataclass(frozen=True)
class Match:
    """An endless match; iterating it again plays it again. A seed is a match, whatever the scale.

    match = Match(seed=3)
    for second in itertools.islice(match, 60):
        frames = match.frames(second)
    """

    seed: int = 0
    scale: int = 1

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ConfigError(f"the seed of a match is {self.seed}, expected 0 or more.")
        if not 1 <= self.scale <= 16:
            raise ConfigError(f"the scale of a match is {self.scale}, expected 1 to 16.")

    def __iter__(self) -> Iterator[Second]:
        course = ticks(self.seed)
        ahead = next(course)
        for number in itertools.count():
            shown = (ahead, *itertools.islice(course, TICKS - 1))
            ahead = next(course)
            event = next((tick.event for tick in shown if tick.event is not None), None)
            yield Second(number, shown, ahead, event)

    def seconds(self, stop: int, start: int = 0) -> list[Second]:
        """The seconds from `start` up to `stop`; the match is played from its beginning."""
        return list(itertools.islice(self, start, stop))

    def frames(self, second: Second, fps: int = TICKS, renderer: Renderer | None = None) -> np.ndarray:
        """Pictures of a second, uint8 (fps, height, width, 3), evenly spaced from its beginning; fps is a multiple of 2."""
        renderer = renderer or Renderer(self.scale)
        between = frames_between_ticks(fps)
        following = (*second.ticks[1:], second.after)
        pairs = zip(second.ticks, following, strict=True)
        return np.stack([renderer.draw(tick, after, i / between) for tick, after in pairs for i in range(between)])

    def video(self, fps: int = TICKS) -> Iterator[tuple[float, np.ndarray]]:
        """(seconds, uint8 (height, width, 3)) without end."""
        renderer = Renderer(self.scale)
        for second in self:
            for i, picture in enumerate(self.frames(second, fps, renderer)):
                yield second.number + i / fps, picture


def frames_between_ticks(fps: int) -> int:
    if fps < TICKS or fps % TICKS:
        raise ConfigError(f"a match of {fps} frames a second: expected a multiple of {TICKS}.")
    return fps // TICKS


def write_match(
    folder: str | Path,
    seed: int,
    minutes: float,
    *,
    scale: int = SCALE,
    fps: int = FPS,
    rule: Overlapped = QUIET,
) -> tuple[Path, Path]:
    """Writes `match-<seed>.mp4` and its annotations, cut into chunks by `rule`; returns both paths.

    Raises OutputError when the files cannot be written.
    """
    match, count = Match(seed, scale), round(minutes * 60)
    if count < 1:
        raise ConfigError(f"a match of {minutes} minutes: expected at least one second.")
    folder = Path(folder)
    video, annotations = folder / f"match-{seed}.mp4", folder / f"match-{seed}_with_seeks.jsonl"
    words: list[Word] = []
    with writing(video):  # FFmpeg's errors are among the system's
        folder.mkdir(parents=True, exist_ok=True)
        _encode(video, match, count, fps, words)
    write_annotations(annotations, overlapped(video.name, words, rule, duration=count, title=f"Match {seed}"))
    return video, annotations


def filmed_pictures(seconds: Sequence[Second], fps: int, scale: int = SCALE) -> list[np.ndarray]:
    """Pictures of seconds, uint8 (height, width, 3), as they come back from an mp4 file."""
    match, renderer, file = Match(scale=scale), Renderer(scale), io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = _stream(container, renderer, fps)
        pictures = (picture for second in seconds for picture in match.frames(second, fps, renderer))
        for number, picture in enumerate(pictures):
            container.mux(stream.encode(_frame(picture, number, fps)))
        container.mux(stream.encode())
    file.seek(0)
    with av.open(file, "r") as film:
        return [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]


def _encode(path: Path, match: Match, count: int, fps: int, words: list[Word]) -> None:
    """The pictures of `count` seconds; their words are added to `words`."""
    renderer = Renderer(match.scale)
    with av.open(str(path), "w") as container:
        container.metadata["comment"] = f"synthetic:match?seed={match.seed}"  # whoever watches the file can tell what it is
        stream = _stream(container, renderer, fps)
        for second in itertools.islice(match, count):
            words += second.words
            for i, picture in enumerate(match.frames(second, fps, renderer)):
                container.mux(stream.encode(_frame(picture, second.number * fps + i, fps)))
        container.mux(stream.encode())


def _stream(container: av.container.OutputContainer, renderer: Renderer, fps: int) -> av.VideoStream:
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    stream = cast(av.VideoStream, container.add_stream(codec, rate=fps))
    stream.height, stream.width = renderer.height, renderer.width
    stream.pix_fmt = "yuv420p"
    stream.thread_count = 1
    if codec == "libx264":
        stream.options = {"preset": "veryfast", "crf": "20"}
    return stream


def _frame(picture: np.ndarray, number: int, fps: int) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
    frame.pts, frame.time_base = number, Fraction(1, fps)
    return frame
