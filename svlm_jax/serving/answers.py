"""Questions about running streams: asked on forks of them, answered in slices between the seconds of captions."""

import itertools
import logging
from collections.abc import Callable

from svlm_jax.errors import RequestError
from svlm_jax.serving.executor import Batch, Executor, Job
from svlm_jax.serving.metrics import Metrics
from svlm_jax.serving.replies import SLICE, Reply, deliver
from svlm_jax.serving.stream import LiveStream, Question
from svlm_jax.video.chunk import Chunk

logger = logging.getLogger(__name__)

EVIDENCE = 6  # pictures that come with an answer


class Answers:
    """Questions that wait for their first piece of work, and those that are being answered; the scheduler's own."""

    def __init__(self, executor: Executor, metrics: Metrics, clock: Callable[[], float]) -> None:
        self.executor, self.metrics, self._clock = executor, metrics, clock
        self._waiting: list[Reply] = []
        self._running: list[tuple[Batch, list[Reply]]] = []

    def __len__(self) -> int:
        return len(self._waiting) + sum(len(replies) for _, replies in self._running)

    def fork(self, stream: LiveStream, question: Question, chunk: Chunk) -> bool:
        """Takes a question in the turn of `chunk`, on a fork of the stream as it stands before that. False: no spare lane."""
        try:
            lane = self.executor.fork(stream.lane)  # type: ignore[arg-type]
        except RequestError:
            return False
        job = Job(lane, chunk, stream.options, stream.chunks, question=question.text, cap=question.max_new_tokens)
        self._waiting.append(Reply(stream, job, question.id, self._clock(), question=question))
        return True

    def advance(self) -> None:
        """One piece of work: reads all questions that wait, as one program, or decodes a slice of the oldest answers."""
        if self._waiting:
            self._begin()
            return
        batch, replies = self._running.pop(0)
        for reply in replies:
            if reply.question is not None and reply.question.cancelled:
                self.executor.leave(batch, reply.row)
        try:
            self.executor.extend(batch, SLICE)
        except Exception as error:
            self._broken(replies, error)
            return
        self._tell(batch, replies)

    def drop(self, stream: LiveStream) -> None:
        """Gives up the questions of a stream that closes."""
        for reply in [reply for reply in self._waiting if reply.stream is stream]:
            self._waiting.remove(reply)
            self.executor.release(reply.job.lane)
        for batch, replies in self._running:
            for reply in [reply for reply in replies if reply.stream is stream]:
                self.executor.leave(batch, reply.row)
                replies.remove(reply)
                self.executor.release(reply.job.lane)
        self._running = [(batch, replies) for batch, replies in self._running if replies]

    def _begin(self) -> None:
        replies, self._waiting = self._waiting, []
        for row, reply in enumerate(replies):
            reply.row = row
            assert reply.question is not None
            reply.stream.emit("answer.start", id=reply.id, question=reply.question.text)
        try:
            batch = self.executor.begin([reply.job for reply in replies])
        except Exception as error:
            self._broken(replies, error)
            return
        self._tell(batch, replies)

    def _tell(self, batch: Batch, replies: list[Reply]) -> None:
        """Sends the new words, ends the answers that are complete, and keeps the others going."""
        deliver(self.executor, batch, replies, self._clock)
        speaking = self.executor.speaking(batch)
        for reply in [reply for reply in replies if reply.row not in speaking]:
            replies.remove(reply)
            if (error := batch.errors[reply.row]) is not None:
                self._fail(reply, error)
            else:
                self._finish(batch, reply)
        if replies:
            self._running.append((batch, replies))

    def _broken(self, replies: list[Reply], error: Exception) -> None:
        """The device refused: these questions fail, nothing else."""
        logger.error("questions failed", exc_info=error)
        for reply in replies:
            self._fail(reply, error)

    def _fail(self, reply: Reply, error: Exception) -> None:
        self.executor.release(reply.job.lane)
        assert reply.question is not None
        question = reply.question.text
        reply.stream.emit("answer", id=reply.id, question=question, text="", status="failed", message=str(error))

    def _finish(self, batch: Batch, reply: Reply) -> None:
        deliver(self.executor, batch, [reply], self._clock, whole=True)
        text, count = self.executor.text(batch, reply.row), len(batch.tokens[reply.row])
        self.executor.release(reply.job.lane)
        self.metrics.questions.inc()
        chunk, question = reply.job.chunk, reply.question
        assert question is not None
        seen = [second for second, _ in reply.stream.thumbnails(chunk.end - reply.stream.options.window.vision)]
        stride = max(1, -(-len(seen) // EVIDENCE))
        reply.stream.emit(
            "answer",
            id=reply.id,
            question=question.text,
            text=text,
            at=chunk.end,
            evidence=list(itertools.islice(reversed(seen), 0, None, stride))[::-1],
            tokens=count,
            status="cancelled" if question.cancelled else "completed",
            first_token_ms=round(1e3 * ((reply.first or self._clock()) - question.asked_at), 2),
            total_ms=round(1e3 * (self._clock() - question.asked_at), 2),
        )
