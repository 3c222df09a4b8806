"""Questions beside `svlm watch`: a second memory watches the same video, and answers without disturbing the captions."""

import argparse
import dataclasses
import queue
import sys
import threading
from typing import TYPE_CHECKING

from svlm_jax.cache.policies import memory_policy
from svlm_jax.cli import options
from svlm_jax.errors import ConfigError, StreamError

if TYPE_CHECKING:
    from svlm_jax.output import SinkGroup, Terminal
    from svlm_jax.prompt.qa import Answer
    from svlm_jax.streaming.qa_session import QASession
    from svlm_jax.streaming.session import Session
    from svlm_jax.video.chunk import Chunk

TYPED = "-"  # --ask - reads questions from the keyboard
BESIDE = memory_policy(clip_frames=8)  # short clips, so that a second beside captions never has to wait for long


def add_questions(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--ask",
        action="append",
        metavar="QUESTION",
        help='a question, or a time and a question ("00:42 Who scored first?"), answered from all that was seen until then, '
        "without touching the captions; repeat the option for more questions; - takes every line that you type as one",
    )
    options.add_memory(group, why="what --ask is answered from", default=BESIDE)


def check_questions(arguments: argparse.Namespace) -> None:
    if arguments.memory is not None and not arguments.ask:
        raise ConfigError(f"--memory {arguments.memory.name} without --ask: nothing would read it, expected a question.")


def questions_beside(arguments: argparse.Namespace, session: "Session") -> "SideQuestions | None":
    """What `--ask` wants; None without it."""
    from svlm_jax.streaming.qa_session import QASession, QASettings

    if not arguments.ask:
        return None
    settings = QASettings(
        memory=arguments.memory or BESIDE,
        fps=session.settings.fps,
        max_pixels=session.settings.max_pixels,
        implementation=arguments.implementation,
    )
    return SideQuestions(QASession(session.vlm, settings), arguments.ask)


class SideQuestions:
    """A memory that watches what a commentator watches, and answers without either of them noticing the other.

    Attributes:
      listens: whether questions are typed, too.
    """

    def __init__(self, recall: "QASession", questions: list[str]) -> None:
        from svlm_jax.streaming.schedule import Schedule, timed

        self.recall, self.listens = recall, TYPED in questions
        self.schedule = Schedule(recall, [timed(text) for text in questions if text != TYPED], self._tell)
        self._typed: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._terminal: Terminal | None = None
        self._sink: SinkGroup | None = None
        self._end: float | None = None

    def rehearse(self, chunk: "Chunk") -> None:
        """Compiles what a running stream will need, on a twin that is thrown away: whole clips, part of one, a question."""
        twin, seconds = self.recall.fork(), chunk.end - chunk.start
        for i in range(self.recall.settings.memory.clip_frames // len(chunk.frames) + 1):
            twin.feed(dataclasses.replace(chunk, start=i * seconds, end=(i + 1) * seconds))
        twin.ask("What is there?")

    def prepare(self, chunk: "Chunk") -> None:
        """Builds the memory: a size of it that cannot work is said before the first caption."""
        self.recall.begin(chunk)

    def show(self, terminal: "Terminal", sink: "SinkGroup", end: float | None) -> None:
        """Where answers go. end: stream time at which the stream will end, if that is known."""
        self._terminal, self._sink, self._end = terminal, sink, end
        if self.listens and not terminal.takes_keys:
            threading.Thread(target=self._listen, name="svlm-questions", daemon=True).start()

    def typed(self, line: str) -> None:
        """A question that somebody has typed, on any thread; it is asked after the second in hand, or when its time comes."""
        self._typed.put(line)

    def feed(self, chunk: "Chunk") -> None:
        """Remembers a chunk, and answers what is due, or was typed since the last one."""
        self.schedule.feed(chunk)
        self._take_typed()

    def finish(self) -> None:
        """Answers what was typed last, and what was to be asked at the end."""
        self._take_typed()
        self.schedule.finish()

    def _take_typed(self) -> None:
        from svlm_jax.streaming.schedule import clock

        assert self._terminal is not None
        while not self._typed.empty():
            line = self._typed.get()
            try:
                at = self.schedule.add(line, self._end)
            except (StreamError, ConfigError) as error:  # of this question only; the stream goes on
                self._terminal.say(f"not asked: {error}")
                continue
            if at is not None:
                self._terminal.say(f"will be asked at {clock(at)}: {line}")

    def _tell(self, answer: "Answer") -> None:
        from svlm_jax.output import AnswerRecord

        assert self._sink is not None
        self._sink.answer(AnswerRecord.of(answer, self.recall.config.shape.seconds))

    def _listen(self) -> None:
        for line in sys.stdin:
            if line.strip():
                self.typed(line.strip())
