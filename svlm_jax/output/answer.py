"""An answer as outputs take it: what was asked and said, when, and which stretches of the video were read for it."""

import dataclasses
from collections.abc import Sequence
from typing import Self

from svlm_jax.output.text import clean_lines
from svlm_jax.prompt.qa import Answer
from svlm_jax.streaming.schedule import clock, spans


@dataclasses.dataclass(frozen=True)
class AnswerRecord:
    """One question about a stream and its answer.

    Attributes:
      answer: what the model answered.
      spans: the stretches of stream time, (start, end) in seconds, that any layer read for it.
      chosen: the words of the option that a multiple choice took, None for an open question.
    """

    answer: Answer
    spans: tuple[tuple[float, float], ...]
    chosen: str | None = None

    @classmethod
    def of(cls, answer: Answer, step: float, choices: Sequence[str] | None = None) -> Self:
        """step: seconds that one temporal grid of the memory stands for. choices: the options, if there were any."""
        chosen = None if choices is None or answer.choice is None else choices[answer.choice]
        return cls(answer, spans(answer.seconds, step), chosen)

    @property
    def at(self) -> float:
        """Stream time of the question in seconds."""
        return self.answer.at

    @property
    def question(self) -> str:
        """The question on one line."""
        return " ".join(clean_lines(self.answer.question))

    @property
    def text(self) -> str:
        """The answer on one line, with the words of the option that was chosen."""
        said = " ".join(clean_lines(self.answer.text))
        return f"{said}. {self.chosen}" if self.chosen is not None else said

    @property
    def cost(self) -> str:
        """How long the first token took, and what was read, in words."""
        read = ", ".join(f"{clock(start)}-{clock(end)}" for start, end in self.spans)
        return f"{self.answer.first_token_ms:.0f} ms to the first token; read {read or 'nothing'}"
