"""Long transcripts cut into samples: short overlapped chunks (stage 1) and dense clips for annealing (stage 2).

    words     w w w   w w w w     w w w w w w   w w w w
    chunks    |-------- 24 s --------|
                          |-------- 24 s --------|            each carries what was said before it

arXiv 2510.09608 sections 2.2 and 2.3. A word belongs to the chunk in which it ends.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence

from svlm_jax.data.annotations import Annotation, Word
from svlm_jax.errors import ConfigError

HISTORY = 1024  # words kept at each end of what was said before: more than any cut to sink and tail leaves


@dataclasses.dataclass(frozen=True)
class Overlapped:
    """Chunks of `seconds` that begin every `stride` seconds and hold at least `words_per_second` words a second."""

    seconds: float = 24.0
    stride: float = 12.0
    words_per_second: float = 2.0

    def __post_init__(self) -> None:
        if not (self.stride > 0 and self.seconds > 0 and self.words_per_second >= 0):
            raise ConfigError(
                f"chunks of {self.seconds} s every {self.stride} s with {self.words_per_second} words a second: "
                "expected positive seconds and no negative count"
            )


@dataclasses.dataclass(frozen=True)
class Annealing:
    """Clips without overlap, `shortest` to `longest` seconds, without a silence of more than `silence` seconds."""

    shortest: float = 16.0
    longest: float = 64.0
    silence: float = 3.0
    words_per_second: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.shortest <= self.longest or min(self.silence, self.words_per_second) < 0:
            raise ConfigError(
                f"clips of {self.shortest} to {self.longest} s with silences of {self.silence} s: "
                "expected 0 < shortest <= longest"
            )


def overlapped(
    video: str, words: Sequence[Word], rule: Overlapped = Overlapped(), *, duration: float | None = None, title: str = ""
) -> Iterator[Annotation]:
    """The overlapped chunks of a video. duration: seconds; the end of the last word if not given."""
    words = sorted(words, key=lambda word: word.end)
    end = duration if duration is not None else math.ceil(words[-1].end) if words else 0.0
    # With a video shorter than a chunk, the whole of it is one.
    count = max(1, int((end - rule.seconds) / rule.stride + 1e-9) + 1) if end > 0 else 0
    for number in range(count):
        start = number * rule.stride
        stop = min(start + rule.seconds, end)
        inside = [word for word in words if start < word.end <= stop]
        if len(inside) >= rule.words_per_second * (stop - start) and inside:
            before = history([word for word in words if word.end <= start])
            yield Annotation(video, start, stop, tuple(inside), previous=before, title=title)


def annealing(
    video: str, words: Sequence[Word], rule: Annealing = Annealing(), *, title: str = "", duration: float | None = None
) -> Iterator[Annotation]:
    """The dense clips of a video, one after the other; they begin and end at whole seconds."""
    words = sorted(words, key=lambda word: word.end)
    stop = 0.0
    for first, last in _runs(words, rule):
        # Not before the last clip ends: a word that begins in its last second is said in the next.
        start = max(math.floor(max(words[first].start, 0.0)), stop)
        stop = float(math.ceil(words[last - 1].end))
        stop = min(stop, start + rule.longest) if duration is None else min(stop, start + rule.longest, duration)
        inside = [word for word in words[first:last] if word.end <= stop]
        if stop - start >= rule.shortest and len(inside) >= rule.words_per_second * (stop - start):
            yield Annotation(video, start, stop, tuple(inside), previous=history(words[:first]), title=title)


def _runs(words: Sequence[Word], rule: Annealing) -> Iterator[tuple[int, int]]:
    """(first, last + 1) of runs of words without a long silence, none longer than a clip may be."""
    first = 0
    for here in range(1, len(words) + 1):
        if (
            here == len(words)
            or words[here].start - words[here - 1].end > rule.silence
            or math.ceil(words[here].end) - math.floor(words[first].start) > rule.longest
        ):
            yield first, here
            first = here


def history(words: Sequence[Word], keep: int = HISTORY) -> str:
    """What was said, as text; its middle is left out when it is longer than any model would read."""
    if len(words) > 2 * keep:
        words = [*words[:keep], *words[-keep:]]
    return " ".join(word.text.strip() for word in words)
