"""A `QASession` behind the six verbs of an evaluation: questions answered from LiveVLM's memory, or one to compare it with."""

from typing import Any

from svlm_jax.cache import policies
from svlm_jax.cache.policies.base import MemoryPolicy
from svlm_jax.errors import ConfigError, StreamError
from svlm_jax.eval.commentary_adapter import CommentaryAdapter
from svlm_jax.eval.interface import Answer, View
from svlm_jax.streaming.qa_session import QASession, QASettings
from svlm_jax.video.chunk import Chunk


class QAAdapter:
    """Streams go into a memory of fixed size that questions read; what comes in one chunk needs none and goes to
    a `CommentaryAdapter`.

    Args:
      max_new_tokens: of an answer.
    """

    def __init__(self, watcher: CommentaryAdapter, memory: MemoryPolicy, *, max_new_tokens: int) -> None:
        self.name, self.vlm = watcher.name, watcher.vlm
        self._watcher, self._memory, self._max_new_tokens = watcher, memory, max_new_tokens
        self._recall: QASession | None = None

    def reset(self, view: View) -> None:
        if view.query is not None:
            raise ConfigError(f"memory {self._memory.name} answers questions: expected a benchmark without commentary")
        self._recall = None
        if view.once:
            self._watcher.reset(view)
        else:
            most = self._watcher.max_pixels
            settings = QASettings(self._memory, fps=view.fps, max_pixels=most, max_new_tokens=self._max_new_tokens)
            self._recall = QASession(self._watcher.vlm, settings)

    def feed(self, chunk: Chunk) -> None:
        (self._recall or self._watcher).feed(chunk)

    def say(self) -> str:
        raise StreamError(f"memory {self._memory.name} answers questions and says nothing by itself")

    def ask(self, question: str, *, max_new_tokens: int) -> Answer:
        if self._recall is None:
            return self._watcher.ask(question, max_new_tokens=max_new_tokens)
        if max_new_tokens != self._max_new_tokens:
            raise ConfigError(f"max_new_tokens={max_new_tokens}: expected {self._max_new_tokens}, as the memory was opened")
        answer = self._recall.ask(question)
        return Answer(answer.text, int(self._recall.state.count[0]), answer.total_ms)

    def snapshot(self) -> Any:
        return self._watcher.snapshot() if self._recall is None else self._recall.fork()

    def restore(self, saved: Any) -> None:
        if isinstance(saved, QASession):
            self._recall = saved.fork()
        else:
            self._recall = None
            self._watcher.restore(saved)

    def describe(self) -> dict[str, Any]:
        return {**self._watcher.describe(), "memory": policies.to_json(self._memory)}
