"""Questions that are to be asked at given times of a stream: "00:42 Who scored first?"."""

import dataclasses
import re
from collections.abc import Callable, Sequence

from svlm_jax.errors import StreamError
from svlm_jax.prompt.qa import Answer
from svlm_jax.streaming.qa_session import QASession
from svlm_jax.video.chunk import Chunk, split

_TIMED = re.compile(
    r"(?:(?P<hours>\d{1,6}):)?(?P<minutes>\d{1,3}):(?P<seconds>\d{2}(?:\.\d{1,9})?)\s+(?P<text>\S.*)", re.DOTALL
)


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
    """Feeds a stream and asks each question when its time has come, before any later frame is seen.

    Args:
      tell: gets each answer as it comes.
    """

    def __init__(
        self,
        recall: QASession,
        questions: Sequence[Timed],
        tell: Callable[[Answer], None],
        choices: Sequence[str] | None = None,
    ) -> None:
        self.recall, self.tell, self.choices = recall, tell, choices
        self._timed = sorted(((q.at, q.text) for q in questions if q.at is not None), key=lambda question: question[0])
        self._last = [q.text for q in questions if q.at is None]

    def add(self, text: str, end: float | None = None) -> float | None:
        """One more question while the stream runs: one with a time is asked then, one without at once (returns None).

        Returns the time. end: stream time in seconds at which the stream will end, if that is known. Raises StreamError for a
        time that has passed or will not come.
        """
        question = timed(text)
        if question.at is None:
            self.tell(self._ask(question.text))
            return None
        if question.at < self.recall.position:
            raise StreamError(
                f"{clock(question.at)} has passed, the stream is at {clock(self.recall.position)}: expected a later time for "
                f"{question.text!r}, or none, to ask it at once"
            )
        if end is not None and question.at > end:
            raise StreamError(
                f"the stream ends at {clock(end)}, before {clock(question.at)}: expected an earlier time for {question.text!r}"
            )
        self._timed = sorted([*self._timed, (question.at, question.text)], key=lambda asked: asked[0])
        return question.at

    def feed(self, chunk: Chunk) -> None:
        """Shows the stream a chunk. A question about a moment inside it comes between the frames."""
        while self._timed and self._timed[0][0] <= chunk.end:
            at, text = self._timed.pop(0)
            before, chunk = split(chunk, at)
            self._show(before)
            self.tell(dataclasses.replace(self._ask(text), at=at))
        self._show(chunk)

    def finish(self) -> None:
        """Asks the questions for the end of the stream. Raises StreamError for a time that it did not reach."""
        for text in self._last:
            self.tell(self._ask(text))
        self._last = []
        if self._timed:
            at, text = self._timed[0]
            raise StreamError(
                f"the stream ended at {clock(self.recall.position)}: expected it to reach {clock(at)}, the time of {text!r}"
            )

    def _show(self, chunk: Chunk) -> None:
        if len(chunk.frames):
            self.recall.feed(chunk)

    def _ask(self, text: str) -> Answer:
        return self.recall.ask(text, choices=self.choices)
