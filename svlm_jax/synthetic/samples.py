"""Training samples made of matches on the fly: every number is a chunk that no other has."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import numpy as np

from svlm_jax.data.chunks import ChunkBuilder, Sample, Turn
from svlm_jax.data.samples import Size, digest
from svlm_jax.data.windows import HISTORY
from svlm_jax.errors import ConfigError
from svlm_jax.synthetic.commentary import SCORES, line
from svlm_jax.synthetic.match import Match, Second, filmed_pictures
from svlm_jax.synthetic.render import Renderer
from svlm_jax.synthetic.world import HEIGHT, TEAMS, TICKS, WIDTH, Event
from svlm_jax.video.resize import resize

LENGTHS = 64  # samples whose length was asked for, and that wait to be loaded
MEMORY = " score"  # what follows it must be remembered


@dataclasses.dataclass(frozen=True)
class MatchSettings:
    """How chunks are drawn from matches.

    Attributes:
      seconds: of a chunk. history: how late in its match a chunk begins at most.
      hours: labels of half of the chunks are moved by up to so many hours, so that late times are not strange.
      swapped, lost: share of earlier lines in which the teams are swapped, or that are missing, as after a mistake. What should
        have been said is still the label.
      misremembered: share of chunks before which the score went wrong by one: the text, and the labels, go on from the wrong
        score, so that a model learns to follow what was said.
      scales: pictures are drawn at one of these scales and resized to the model's size.
      filmed: share of chunks whose pictures, four times as large, go through an mp4 file and back before they are resized.
      blind: leaves pictures and most of the seconds without a score out, but not their positions, and has only scores and who
        scored last learned: many more of those labels for the same work, for a second set in the mixture with more `seconds`.
      kept: share of the other lines that blind chunks keep.
      chunks, matches: chunks of one match, and matches that take turns.
    """

    seconds: int = 24
    history: int = 360
    hours: float = 3.0
    swapped: float = 0.12
    lost: float = 0.04
    misremembered: float = 0.2
    scales: tuple[int, ...] = (1, 1, 1, 4)
    filmed: float = 0.1
    blind: bool = False
    kept: float = 0.25
    chunks: int = 12
    matches: int = 16

    def __post_init__(self) -> None:
        for name in ("swapped", "lost", "misremembered", "filmed", "kept"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name}={getattr(self, name)}: expected a share from 0 to 1")
        for name in ("seconds", "chunks", "matches"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: expected at least 1")


class MatchSamples:
    """`count` chunks of matches, a set for the pipeline. Numbers that follow each other share matches, which are kept.

    Args:
      size: (height, width) of frames.
      seed: of the matches; keep those for evaluation apart by another one.
    """

    shuffled = True

    def __init__(
        self,
        build: ChunkBuilder,
        *,
        seed: int = 0,
        count: int = 1_000_000,
        size: Size = (HEIGHT, WIDTH),
        settings: MatchSettings = MatchSettings(),
    ) -> None:
        if build.settings.frames != TICKS or build.settings.chunk_seconds != 1:
            raise ConfigError(f"matches have {TICKS} frames a second and turns of one second, not {build.settings}.")
        self.name, self.frames = f"matches {seed}", TICKS
        self._build, self._seed, self._count, self._size, self._settings = build, seed, count, size, settings
        self._match = functools.lru_cache(maxsize=2 * settings.matches)(self._play)
        self._text = functools.lru_cache(maxsize=LENGTHS)(self._texted)

    def __len__(self) -> int:
        return self._count

    def size(self, number: int) -> Size:
        return self._size

    def length(self, number: int, size: Size) -> tuple[int, int]:
        text, seconds = self._text(number, size)
        return len(text.tokens), 0 if self._settings.blind else len(seconds)

    def load(self, number: int, size: Size) -> Sample:
        text, seconds = self._text(number, size)
        if self._settings.blind:
            return text
        rng = np.random.default_rng([self._seed, number, 1])
        scale, filmed = int(rng.choice(self._settings.scales)), rng.random() < self._settings.filmed
        pictures = filmed_pictures(seconds, TICKS) if filmed else _drawn(seconds, scale)
        clips = np.stack([resize(picture, size) for picture in pictures]).reshape(len(seconds), TICKS, *size, 3)
        return dataclasses.replace(text, frames=np.ascontiguousarray(clips.transpose(0, 1, 4, 2, 3)))

    def fingerprint(self) -> str:
        return digest(self._seed, self._count, self._settings, self._build.settings, self._build.model)

    def _play(self, match: int) -> list[Second]:
        seed = int(np.random.default_rng([self._seed, match]).integers(2**48))
        return Match(seed).seconds(self._settings.history + self._settings.seconds)

    def _texted(self, number: int, size: Size) -> tuple[Sample, Sequence[Second]]:
        """The sample without its pictures, and the seconds that it tells."""
        previous, spoken, seconds = self._chunk(number)
        blank = None if self._settings.blind else np.broadcast_to(np.uint8(0), (len(spoken), TICKS, 3, *size))
        return self._build.build(previous, spoken, blank, size=size), seconds

    def _chunk(self, number: int) -> tuple[str, list[Turn], Sequence[Second]]:
        """What was said before, the turns, and the seconds that they tell."""
        settings = self._settings
        rng = np.random.default_rng([self._seed, number, 0])
        group, place = divmod(number, settings.matches * settings.chunks)
        match = self._match(group * settings.matches + place % settings.matches)
        start = int(rng.integers(settings.history + 1))
        wanted = _remembered(match, start, rng) if rng.random() < settings.misremembered else [second.line for second in match]
        said = _misheard(match, wanted, rng, settings)
        moved = float(rng.integers(int(settings.hours * 3600) + 1)) if rng.random() < 0.5 else 0.0
        here = range(start, start + settings.seconds)
        spoken = [_turn(moved + s, said[s], wanted[s]) for s in here]
        if settings.blind:
            spoken = [_blind(turn, kept=rng.random() < settings.kept) for turn in spoken]
        words = " ".join(text for text in said[:start] if text).split()
        if len(words) > 2 * HISTORY:
            words = words[:HISTORY] + words[-HISTORY:]
        return " ".join(words), spoken, match[start : start + settings.seconds]


def _turn(start: float, said: str, wanted: str) -> Turn:
    return Turn(start, start + 1, _spaced(said), truth=_spaced(wanted))


def _blind(turn: Turn, *, kept: bool) -> Turn:
    if MEMORY in turn.words:
        return dataclasses.replace(turn, given=turn.words.find(MEMORY) + len(MEMORY))
    return dataclasses.replace(turn, given=-1, skipped=not (turn.words and kept))


def _spaced(text: str) -> str:
    return f" {text}" if text else ""


def _misheard(match: Sequence[Second], lines: Sequence[str], rng: np.random.Generator, settings: MatchSettings) -> list[str]:
    """What the text says when mistakes were made. Lines with a score stay: nothing else holds it."""
    result = []
    for second, text in zip(match, lines, strict=True):
        chance = rng.random()
        if second.event is None or second.event.score is not None or chance >= settings.swapped + settings.lost:
            result.append(text)
        elif chance < settings.swapped:
            team = TEAMS[1 - TEAMS.index(second.event.team)]
            result.append(line(dataclasses.replace(second.event, team=team)))
        else:
            result.append("")
    return result


def _remembered(match: Sequence[Second], start: int, rng: np.random.Generator) -> list[str]:
    """The lines when the score was said one too high or too low, from some earlier moment of the present game to its end."""
    game, since = match[start].game, int(rng.integers(max(start - 60, 0), start + 1))
    told = {
        second.number: second.event
        for second in match[since:]
        if second.game == game and second.event is not None and second.event.score is not None
    }
    lines = [second.line for second in match]
    mistakes = [(1, 0), (-1, 0), (0, 1), (0, -1)]
    possible = [mistake for mistake in mistakes if all(_scored(_changed(event, mistake)) for event in told.values())]
    if possible:
        mistake = possible[int(rng.integers(len(possible)))]
        for number, event in told.items():
            lines[number] = line(_changed(event, mistake))
    return lines


def _changed(event: Event, mistake: tuple[int, int]) -> Event:
    red, blue = event.score or (0, 0)
    return dataclasses.replace(event, score=(red + mistake[0], blue + mistake[1]))


def _scored(event: Event) -> bool:
    """Whether the score is one that can be said."""
    red, blue = event.score or (0, 0)
    return min(red, blue) >= 0 and f"{red}-{blue}" in SCORES


def _drawn(seconds: Sequence[Second], scale: int) -> Iterator[np.ndarray]:
    """uint8 (height, width, 3), TICKS a second."""
    match, renderer = Match(scale=scale), Renderer(scale)
    return (picture for second in seconds for picture in match.frames(second, TICKS, renderer))
