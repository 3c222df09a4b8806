"""One live stream of a client: pictures in, captions and answers out, and what it may change while it runs.

Threads: pictures come from the API's thread (`push`), captions from the scheduler's (`emit`). Both hold `lock` for moments
only; subscribers are called on the scheduler's thread and must not wait.
"""

import collections
import dataclasses
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from svlm_jax.cache.window import WindowConfig
from svlm_jax.engine.sampling import Sampling
from svlm_jax.errors import RequestError
from svlm_jax.serving.frames import Ack, FrameAssembler, Late, WaitingChunks
from svlm_jax.serving.images import encode_thumbnail
from svlm_jax.serving.limits import Limits, RateLimit
from svlm_jax.video.chunk import Chunk

KEPT_CAPTIONS = 3_600  # captions of a stream that the server can still list
KEPT_THUMBNAILS = 120  # one a chunk: evidence for answers about the last two minutes

Kind = Literal[
    "caption.start", "caption.words", "caption", "answer.start", "answer.words", "answer", "status", "closed", "error"
]


@dataclasses.dataclass(frozen=True)
class Event:
    """Something that happened to a stream. data: plain JSON values."""

    kind: Kind
    data: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class StreamOptions:
    """What a client chooses about its stream; every field can change while it runs, and nothing is compiled for it.

    Attributes:
      system: system prompt, which never leaves the cache. query: stands in the next turn, and leaves with it.
      previous_text: what was said before; only when a stream begins.
      window: what is remembered; at most what the server's lanes hold.
      sampling: how words are chosen; its cap is at most the server's.
      late: what happens to chunks that the device has no time for.
      seed: same seed, same words.
    """

    system: str
    query: str | None
    window: WindowConfig
    sampling: Sampling
    previous_text: str = ""
    late: Late = "drop"
    seed: int = 42


@dataclasses.dataclass
class Question:
    """A question on its way to an answer."""

    text: str
    max_new_tokens: int
    id: str = dataclasses.field(default_factory=lambda: f"resp_{secrets.token_hex(8)}")
    asked_at: float = dataclasses.field(default_factory=time.monotonic)
    cancelled: bool = False


class LiveStream:
    """See the module. Made by the scheduler, which owns `lane` and `position`.

    Attributes:
      id: secret enough to be a client's key to its own stream.
      lane: of the device's pool; None while the stream is saved and not on the device.
      position: seconds watched. chunks: seen by the model.
      paused: pictures are acknowledged and not looked at.
    """

    def __init__(
        self,
        options: StreamOptions,
        assembler: FrameAssembler,
        limits: Limits,
        *,
        wake: Callable[[], None],
        id: str | None = None,
    ) -> None:
        self.id = id or f"sess_{secrets.token_urlsafe(18)}"
        self.options, self.assembler, self.limits = options, assembler, limits
        self.lane: int | None = None
        self.position, self.chunks = 0.0, 0
        self.paused = self.closed = False
        self.created = time.time()
        self.last_frame = time.monotonic()
        self.captions: collections.deque[Mapping[str, Any]] = collections.deque(maxlen=KEPT_CAPTIONS)
        self.usage: Mapping[str, Any] = {}
        self.misses = 0
        self.waiting = WaitingChunks(options.late)
        self.newest: Chunk | None = (
            None  # the last chunk that the model saw: a question to a stream that stands still gets it again
        )
        self.questions: collections.deque[Question] = collections.deque()
        self.lock = threading.Lock()
        self._wake = wake
        self._rate = RateLimit(limits.frames_per_second, 2 * limits.frames_per_second)
        self._subscribers: dict[int, Callable[[Event], None]] = {}
        self._thumbnails: collections.deque[tuple[float, bytes]] = collections.deque(maxlen=KEPT_THUMBNAILS)

    # ------------------------------------------------------------------------------------------- from the client

    def push(self, picture: np.ndarray, stamp: float) -> Ack:
        """Takes a picture, uint8 RGB (H, W, 3), of the moment `stamp` on the client's clock."""
        if not self._rate.allows():
            raise RequestError(
                "too_many_frames",
                f"more than {self.limits.frames_per_second:g} pictures a second: expected fewer",
                status=429,
            )
        with self.lock:
            self._open_or_raise()
            self.last_frame = time.monotonic()
            if self.paused:
                return Ack(len(self.waiting), self.waiting.dropped)
            for chunk in self.assembler.push(picture, stamp):
                self.waiting.put(chunk, self.last_frame + self.assembler.seconds)
            ack = Ack(len(self.waiting), self.waiting.dropped)
        self._wake()
        return ack

    def push_chunk(self, chunk: Chunk) -> None:
        """Takes a whole chunk, of a source that the server reads itself."""
        with self.lock:
            self._open_or_raise()
            self.last_frame = time.monotonic()
            if not self.paused:
                self.waiting.put(chunk, self.last_frame + self.assembler.seconds)
        self._wake()

    def ask(self, text: str, max_new_tokens: int) -> Question:
        """Queues a question; its answer comes as events that carry its id."""
        text = self.limits.text("question", text.strip(), self.limits.question_chars)
        if not text:
            raise RequestError("empty_question", "an empty question: expected some words", param="question")
        question = Question(text, max_new_tokens)
        with self.lock:
            self._open_or_raise()
            if len(self.questions) >= self.limits.questions:
                raise RequestError(
                    "too_many_questions", f"{len(self.questions)} questions wait already: expected fewer", status=429
                )
            if self.newest is None and not len(self.waiting):
                raise RequestError("no_video", "the stream has not seen any video yet: expected a picture to ask about")
            self.questions.append(question)
        self._wake()
        return question

    def _open_or_raise(self) -> None:
        if self.closed:
            raise RequestError("closed", "the stream is closed", status=410)

    # ------------------------------------------------------------------------------------------- to the client

    def subscribe(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Calls `listener` with every event from now on; the function that is returned ends that."""
        key = id(listener)
        with self.lock:
            self._subscribers[key] = listener

        def leave() -> None:
            with self.lock:
                self._subscribers.pop(key, None)

        return leave

    def emit(self, kind: Kind, **data: Any) -> None:
        with self.lock:
            listeners = list(self._subscribers.values())
            if kind == "caption":
                self.captions.append(data)
        for listener in listeners:
            listener(Event(kind, data))

    def remember(self, chunk: Chunk) -> None:
        """Keeps a small picture of a chunk that the model has seen."""
        self.newest = chunk
        self._thumbnails.append((chunk.start, encode_thumbnail(chunk.frames[0])))

    def thumbnails(self, since: float) -> list[tuple[float, bytes]]:
        """(seconds, JPEG) of chunks from `since` on that are still kept."""
        return [(second, jpeg) for second, jpeg in list(self._thumbnails) if second >= since]

    def thumbnail(self, second: float) -> bytes | None:
        """The picture nearest to a second, within one chunk."""
        kept = list(self._thumbnails)
        if not kept:
            return None
        found, jpeg = min(kept, key=lambda item: abs(item[0] - second))
        return jpeg if abs(found - second) <= self.assembler.seconds else None

    def summary(self) -> dict[str, Any]:
        """What is told about the stream in a list of streams."""
        return {
            "id": self.id,
            "object": "svlm.stream",
            "created": int(self.created),
            "position": self.position,
            "chunks": self.chunks,
            "paused": self.paused,
            "pending": len(self.waiting),
            "dropped": self.waiting.dropped,
            "deadline_misses": self.misses,
            "usage": self.usage,
        }
