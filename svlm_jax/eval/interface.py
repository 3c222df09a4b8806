"""What an evaluation needs of a model that watches: six verbs, for measuring other models, or ours in other harnesses.

model.reset(View(fps=2.0, seconds=1.0))     a new stream
model.feed(chunk); model.say()              the next chunk, and what the model says to it
model.feed(chunk); model.ask("Who scored?") the next chunk, and what the model answers at that moment
saved = model.snapshot(); model.restore(saved)

A question leaves no trace: after `ask` the stream goes on as if nobody had asked.
"""

import dataclasses
from typing import Any, Protocol

from svlm_jax.video.chunk import Chunk


@dataclasses.dataclass(frozen=True)
class View:
    """How a stream will be shown, known before its first chunk.

    Attributes:
      fps, seconds: frames per second, and the length of a chunk.
      once: everything comes in one chunk, so nothing need be remembered.
      previous: what was said before the stream begins.
      query: the standing instruction of a commentator; None = the model's own.
      duration: seconds that the stream lasts at most, None if unknown.
    """

    fps: float
    seconds: float
    once: bool = False
    previous: str = ""
    query: str | None = None
    duration: float | None = None


@dataclasses.dataclass(frozen=True)
class Answer:
    """What the model answered.

    Attributes:
      text: the words. tokens: held in the cache when it answered. ms: wall time from the question to the whole answer.
    """

    text: str
    tokens: int = 0
    ms: float = 0.0


class Model(Protocol):
    """A model that watches one stream at a time.

    Attributes:
      name: as it stands in results.
    """

    name: str

    def reset(self, view: View) -> None:
        """Forgets everything and begins a new stream."""

    def feed(self, chunk: Chunk) -> None:
        """Shows the next chunk."""

    def say(self) -> str:
        """What the model says to the chunk that was fed last; "" for silence."""

    def ask(self, question: str, *, max_new_tokens: int) -> Answer:
        """The answer to a question that is asked while the chunk that was fed last is seen; the stream stays untouched."""

    def snapshot(self) -> Any:
        """The stream as a value."""

    def restore(self, saved: Any) -> None:
        """Goes on where a snapshot was taken; a snapshot can be restored any number of times."""

    def describe(self) -> dict[str, Any]:
        """What the manifest of a result says about the model: plain values for JSON."""
