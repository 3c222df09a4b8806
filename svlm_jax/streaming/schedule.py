"""Questions that are to be asked at given times of a stream: "00:42 Who scored first?"."""

import dataclasses
import re
from collections.abc import Iterator, Sequence

from svlm_jax.errors import StreamError
from svlm_jax.streaming.dialogue import Answer
from svlm_jax.streaming.recall import Recall

_TIMED = re.compile(r"(?:(?P<hours>\d+):)?(?P<minutes>\d{1,3}):(?P<seconds>\d{2}(?:\.\d+)?)\s+(?P<text>\S.*)", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Timed:
    """A question, and the stream time in seconds at which it is asked; None = when the stream ends."""

    text: str
    at: float | None


def timed(text: str) -> Timed:
    """A question that may begin with a time, as minutes:seconds or hours:minutes:seconds."""
    match = _TIMED.fullmatch(text.strip())
    if match is None:
        return Timed(text.strip(), None)
    return Timed(match["text"], 3600 * int(match["hours"] or 0) + 60 * int(match["minutes"]) + float(match["seconds"]))


def clock(seconds: float) -> str:
    """Stream time as m:ss or h:mm:ss."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def spans(seconds: Sequence[float], step: float) -> tuple[tuple[float, float], ...]:
    """Seconds of frames, each of which stands for `step` seconds, as the stretches of time that they make up."""
    found: list[list[float]] = []
    for second in seconds:
        if found and second <= found[-1][1] + 1e-3:
            found[-1][1] = second + step
        else:
            found.append([second, second + step])
    return tuple((start, end) for start, end in found)


class Schedule:
    """Asks each question when its time has come."""

    def __init__(self, recall: Recall, questions: Sequence[Timed], choices: Sequence[str] | None = None) -> None:
        self.recall, self.choices = recall, choices
        self._waiting = sorted(questions, key=lambda question: float("inf") if question.at is None else question.at)

    def due(self) -> Iterator[Answer]:
        """Answers to the questions whose time the stream has reached; each reads what was seen before that time."""
        while self._waiting and self._waiting[0].at is not None and self._waiting[0].at <= self.recall.position:
            question = self._waiting.pop(0)
            yield self.recall.ask(question.text, choices=self.choices, at=question.at)

    def rest(self) -> Iterator[Answer]:
        """Answers to the questions for the end of the stream. Raises StreamError for a time that it did not reach."""
        yield from self.due()
        late = [question for question in self._waiting if question.at is not None]
        for question in self._waiting[len(late) :]:
            yield self.recall.ask(question.text, choices=self.choices)
        self._waiting = []
        if late:
            end, wanted = clock(self.recall.position), clock(late[0].at or 0)
            raise StreamError(f"the stream ended at {end}: expected it to reach {wanted}, the time of {late[0].text!r}")
