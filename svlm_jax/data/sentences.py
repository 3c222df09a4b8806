"""What is said in a video, as sentences of words with their times."""

import dataclasses

from svlm_jax.data.annotations import Word


@dataclasses.dataclass(frozen=True)
class Sentence:
    """What is said from `start` to `end` (seconds of the video)."""

    start: float
    end: float
    words: tuple[Word, ...]

    @property
    def text(self) -> str:
        return " ".join(word.text for word in self.words)


def spread(text: str, start: float, end: float) -> tuple[Word, ...]:
    """The words of a text, evenly over the time from `start` to `end`."""
    words = text.split()
    step = (end - start) / max(len(words), 1)
    return tuple(Word(round(start + i * step, 3), round(start + (i + 1) * step, 3), word) for i, word in enumerate(words))
