"""A `StreamingVLM` behind the six verbs of an evaluation."""

import dataclasses
import time
from typing import Any

from svlm_jax.errors import StreamError
from svlm_jax.eval.interface import Answer, View
from svlm_jax.streaming.session import Session
from svlm_jax.streaming.settings import StreamSettings
from svlm_jax.streaming.vlm import StreamingVLM
from svlm_jax.video.chunk import Chunk

ROOM = 1536  # tokens of the cache for a question and its answer


class CommentaryAdapter:
    """Streams through a model's cache.

    The newest chunk is held back until it is known what is to be done with it: `say` and the next `feed` let the model speak
    to it, `ask` puts the question into its turn, on a fork. So the model is asked in the form it was trained in, and sees
    everything up to the question.

    Args:
      settings: of the streams: window, memory, sampling; fps, chunk length, query and previous text come with each `View`.
    """

    def __init__(self, vlm: StreamingVLM, settings: StreamSettings | None = None, *, revision: str | None = None) -> None:
        settings = settings or vlm.defaults
        self.name, self.revision = vlm.name, revision
        self.max_pixels = settings.max_pixels
        self.vlm, self._settings = vlm, dataclasses.replace(settings, qa_token_budget=max(settings.qa_token_budget, ROOM))
        self._session: Session | None = None
        self._pending: Chunk | None = None
        self._said = ""

    def reset(self, view: View) -> None:
        settings = dataclasses.replace(
            self._settings,
            fps=view.fps,
            chunk_seconds=view.seconds,
            previous_text=view.previous,
            duration=view.duration if self._settings.duration is None else self._settings.duration,
        )
        if view.query is not None:
            settings = dataclasses.replace(settings, query=view.query)
        if view.once:  # a cache for the one chunk, whatever its length
            window = dataclasses.replace(settings.window, vision=view.seconds, text=view.seconds, memory="stream")
            settings = dataclasses.replace(settings, window=window, query=view.query, duration=None)
        self._session, self._pending, self._said = self.vlm.stream(settings), None, ""

    def feed(self, chunk: Chunk) -> None:
        self._speak()
        self._pending = chunk

    def say(self) -> str:
        self._speak()
        return self._said

    def ask(self, question: str, *, max_new_tokens: int) -> Answer:
        if self._pending is None:
            raise StreamError("a question was asked before any video, or after the model had spoken to the newest chunk")
        begin = time.perf_counter()
        caption = self._open().ask(question, self._pending, max_new_tokens=max_new_tokens)
        tokens = sum(used for used, _ in caption.usage.values())
        return Answer(caption.text, tokens, 1e3 * (time.perf_counter() - begin))

    def snapshot(self) -> Any:
        return self._open().fork(), self._pending, self._said

    def restore(self, saved: Any) -> None:
        session, self._pending, self._said = saved
        self._session = session.fork()

    def describe(self) -> dict[str, Any]:
        settings = self._settings.to_json()
        for name in ("fps", "chunk_seconds", "previous_text", "keep_logits", "split_timing"):
            del settings[name]
        return {"model": self.name, "revision": self.revision, "dtype": self.vlm.number_format, "settings": settings}

    def _speak(self) -> None:
        if self._pending is not None:
            self._said = self._open().feed(self._pending).text
            self._pending = None

    def _open(self) -> Session:
        if self._session is None:
            raise StreamError("no stream was begun: expected reset before anything else")
        return self._session
