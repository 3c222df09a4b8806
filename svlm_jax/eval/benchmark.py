"""What a benchmark is: how its files are read, how its items are shown, and how their answers become a score."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from svlm_jax.errors import ConfigError
from svlm_jax.eval.answers import LETTERS
from svlm_jax.eval.items import Grade, Item
from svlm_jax.eval.protocols import ROWS, Outcome, Protocol, Row

Judging = Literal["none", "answer", "pair"]
COMMENTARY_ROWS: tuple[Row, ...] = (*ROWS, "chunked")


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """One published benchmark.

    Attributes:
      name: on the command line. title: as published.
      read: the items of a data folder, in the order of the files; EvalError when they are not as published.
      videos: folders below the data folder where videos may lie, tried in this order.
      protocol: how items are shown unless told otherwise. rows: which rows make sense.
      grade: points of an outcome; None where a judge decides.
      judging: what a judge is asked: whether an answer is right, or which of two commentaries is better.
      answers: reads the raw answers of published result files, by id of the items; None where there are none.
      average: of what the official total is the mean: of "items", of "tasks", or of "tracks" that are means of their tasks.
    """

    name: str
    title: str
    read: Callable[[Path], list[Item]]
    videos: tuple[str, ...] = ("", "videos", "video")
    protocol: Protocol = Protocol()  # noqa: RUF009 (frozen)
    rows: tuple[Row, ...] = ROWS
    grade: Callable[[Outcome], Grade] | None = None
    judging: Judging = "none"
    answers: Callable[[Path], dict[str, str]] | None = None
    average: Literal["items", "tasks", "tracks"] = "items"

    def check_row(self, row: str) -> None:
        """ConfigError when the benchmark has no such row."""
        if row not in self.rows:
            raise ConfigError(f"row {row!r} of {self.name}: expected one of {', '.join(self.rows)}")


def choose(question: str, options: Sequence[str]) -> str:
    """A question with lettered options."""
    lines = [f"{name}. {option}" for name, option in zip(LETTERS, options, strict=False)]
    return "\n".join([f"Question: {question}", "Options:", *lines, "Answer with the letter of the right option only."])


def unlettered(options: Sequence[str]) -> tuple[str, ...]:
    """Options without the "A. " that some files put in front of every one of them."""
    heads = [(f"{name}.", f"{name})", f"({name})") for name in LETTERS[: len(options)]]
    if all(option.strip().startswith(head) for option, head in zip(options, heads, strict=True)):
        found = (next(h for h in head if option.strip().startswith(h)) for option, head in zip(options, heads, strict=True))
        return tuple(option.strip().removeprefix(h).strip() for option, h in zip(options, found, strict=True))
    return tuple(options)


def letter_of(answer: str, options: Sequence[str]) -> str:
    """The letter of the option that is the answer; "" if none is."""
    return next((name for name, option in zip(LETTERS, options, strict=False) if option.strip() == answer.strip()), "")
