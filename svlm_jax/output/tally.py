"""What a run came to: a sink that counts, and says so at the end."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from svlm_jax.output.answer import AnswerRecord
from svlm_jax.output.base import Closing
from svlm_jax.streaming.caption import Caption
from svlm_jax.streaming.schedule import clock


class Tally(Closing):
    """Counts captions, answers, and seconds of video watched, dropped and passed; `lines` is the summary.

    The speed is that of what came after the first caption, for which programs are compiled.

    Attributes:
      seconds, wall: of video after the first caption, and of time that they took.
    """

    def __init__(self, files: Sequence[str | Path] = ()) -> None:
        self._files = [str(file) for file in files]
        self._captions = self._spoken = self._answers = 0
        self._dropped = self._watched = 0.0
        self.seconds = self.wall = 0.0
        self._first: float | None = None

    def write(self, caption: Caption, frames: np.ndarray | None = None) -> None:
        length = caption.end - caption.start
        now = time.perf_counter()
        if self._first is None:
            self._first = now
        else:
            self.seconds += length
            self.wall = now - self._first
        self._captions += 1
        self._spoken += not caption.silent
        self._watched += length
        self._dropped += caption.dropped

    def answer(self, record: AnswerRecord) -> None:
        self._answers += 1

    def counted(self) -> str:
        """What was watched, said and dropped, in two sentences."""
        words = f"{_count(self._captions, 'chunk')} of video, {clock(self._watched)} in all: {_count(self._spoken, 'caption')}"
        words += f", {self._captions - self._spoken:,} silent"
        words += f", {_count(self._answers, 'answer')}." if self._answers else "."
        lost = f"{self._dropped:.1f} s of video were dropped, because the model was slower than the stream."
        return f"{words} {lost if self._dropped else 'Nothing was dropped.'}"

    def lines(self) -> list[str]:
        """The summary, a line each for what was counted, how fast it was, and what was written."""
        said = [self.counted()]
        if self.wall > 0:
            said.append(f"After the first caption, {pace(self.seconds, self.wall)}")
        if self._files:
            said.append(f"Written: {', '.join(self._files)}.")
        return said


def pace(seconds: float, wall: float, whose: str = "") -> str:
    """How fast so many seconds of video went by in `wall` seconds."""
    return f"{seconds:.0f} s of video{whose} took {wall:.1f} s: {seconds / wall:.1f} times as fast as it plays."


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'s' * (number != 1)}"
