"""Words of streams that are being decoded: captions and answers alike, sent as they come."""

import dataclasses
from collections.abc import Callable, Iterable

from svlm_jax.serving.executor import Batch, Executor, Job
from svlm_jax.serving.stream import LiveStream, Question

SLICE = 4  # tokens that are decoded before words leave, and before others get their turn


@dataclasses.dataclass
class Reply:
    """A caption, or the answer to a question.

    Attributes:
      row: of the batch that decodes it. began: when its computation began; due: when its next chunk is complete.
      said: the words that have been sent. first: when the first of them were.
    """

    stream: LiveStream
    job: Job
    id: str
    began: float
    due: float = 0.0
    question: Question | None = None
    row: int = 0
    said: str = ""
    first: float | None = None

    @property
    def kind(self) -> str:
        return "caption" if self.question is None else "answer"


def deliver(
    executor: Executor, batch: Batch, replies: Iterable[Reply], clock: Callable[[], float], *, whole: bool = False
) -> None:
    """Sends the words that are new since the last delivery. whole: the replies have ended."""
    for reply in replies:
        if batch.errors[reply.row] is not None:
            continue
        text = executor.text(batch, reply.row) if whole else executor.words(batch, reply.row)
        words = text[len(reply.said) :]
        if not words:
            continue
        if reply.first is None:
            reply.first = clock()
            if reply.question is None:
                reply.stream.emit("caption.start", id=reply.id, start=reply.job.chunk.start, end=reply.job.chunk.end)
        reply.said = text
        reply.stream.emit(f"{reply.kind}.words", id=reply.id, words=words)  # type: ignore[arg-type]
