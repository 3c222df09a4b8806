"""The device side of a server: a pool of lanes of one shape, and the programs that run the rows that are due.

Everything that a stream may change is a number or a token, so that the programs are compiled once, before the first stream:
a second for 1, 2, 4, … rows, the same with room for a question, and the small ones that open, fork, read and free a lane.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from pallas_kernels.dispatch import Implementation
from svlm_jax.cache.window import WindowConfig
from svlm_jax.engine import lanes as engine
from svlm_jax.engine.sampling import Sampling, SamplingBounds
from svlm_jax.errors import ConfigError, RequestError, StreamError, SvlmError
from svlm_jax.models.resize_rule import ResizeRule
from svlm_jax.serving.frames import FrameAssembler
from svlm_jax.serving.stream import StreamOptions
from svlm_jax.streaming.caption import Timing
from svlm_jax.streaming.pool import LanePool
from svlm_jax.streaming.session import Session
from svlm_jax.streaming.settings import StreamSettings
from svlm_jax.streaming.vlm import StreamingVLM
from svlm_jax.video.chunk import Chunk
from svlm_jax.video.source import frames_per_chunk

MOST_ROWS = 64  # of one program


@dataclasses.dataclass(frozen=True)
class PoolSettings:
    """What the programs are compiled for.

    Attributes:
      lanes: streams at once. spare: lanes beside them, for questions that are being answered.
      size: (height, width) of the pictures that the model sees.
      fps, chunk_seconds: frames a second, and video between two captions.
      window: the largest that a stream may ask for.
      prompt_tokens: of a system prompt and earlier text together. query_tokens: of a query. question_tokens: of a question.
      caption_tokens, answer_tokens: of one caption and of one answer, at most.
      top_k: the largest that a stream may ask for; 0: any.
      max_pixels: of a picture; None: as the model was trained. implementation: of attention, see `pallas_kernels.dispatch`.
    """

    lanes: int
    size: tuple[int, int]
    window: WindowConfig
    sampling: Sampling
    fps: float = 2.0
    chunk_seconds: float = 1.0
    spare: int = 2
    prompt_tokens: int = 512
    query_tokens: int = 32
    question_tokens: int = 256
    answer_tokens: int = 64
    top_k: int = 64
    max_pixels: int | None = None
    implementation: Implementation = "auto"

    def __post_init__(self) -> None:
        for name in ("lanes", "spare", "prompt_tokens", "query_tokens", "question_tokens", "answer_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: expected 1 or more")


@dataclasses.dataclass
class Job:
    """A chunk that a lane is to see; with a question, what it is asked about it."""

    lane: int
    chunk: Chunk
    options: StreamOptions
    chunks: int
    question: str | None = None
    cap: int | None = None


@dataclasses.dataclass
class Batch:
    """Replies of the rows of one program: ids, captions, and what went wrong with a row alone."""

    jobs: Sequence[Job]
    tokens: list[tuple[int, ...]]
    captions: list[Any]
    errors: list[SvlmError | None]


class Executor:
    """A model with its pool; all methods belong to one thread."""

    def __init__(self, vlm: StreamingVLM, settings: PoolSettings) -> None:
        self.vlm, self.settings = vlm, settings
        self.lanes, self.spare = settings.lanes, settings.spare
        self.chunk_seconds = settings.chunk_seconds
        self._count = frames_per_chunk(settings.fps, settings.chunk_seconds, vlm.config.vision.grid_frames)
        self.ladder = tuple(1 << i for i in range((min(settings.lanes, MOST_ROWS) - 1).bit_length() + 1))
        widest = StreamOptions(system="", query=None, window=settings.window, sampling=settings.sampling)
        config = self._session(widest, None).capacity(
            self._blank(),
            opening=settings.prompt_tokens,
            query=settings.query_tokens + settings.question_tokens + settings.answer_tokens,
        )
        config = dataclasses.replace(config, sampling=self._bounds())
        self.pool = LanePool(config, settings.lanes + settings.spare, clip_shape=self._blank().shape)
        self._sessions: dict[int, Session] = {}
        self._forks: set[int] = set()  # lanes of questions

    # ------------------------------------------------------------------------------------------- lanes

    @property
    def used(self) -> int:
        """Lanes that hold a stream or a question."""
        return len(self._sessions)

    @property
    def streams(self) -> int:
        """Lanes that hold a stream."""
        return len(self._sessions) - len(self._forks)

    def open(self, options: StreamOptions) -> int:
        """A lane with a fresh stream. RequestError when all are taken, or when the options do not fit the lanes."""
        if self.streams >= self.lanes:
            raise RequestError(
                "session_capacity_exceeded",
                f"{self.lanes} streams run already: expected a free lane, try again later",
                status=503,
            )
        session = self._session(options, self.pool)
        try:
            session.start(self._blank())
        except (ConfigError, StreamError) as error:
            session.close()
            raise RequestError("bad_value", str(error), param="svlm") from None
        self._sessions[session.lane] = session
        return session.lane

    def fork(self, lane: int) -> int:
        """A spare lane that stands where `lane` stands. RequestError when none is free."""
        if len(self._forks) >= self.spare:  # the other lanes are for streams
            raise RequestError("busy", "all lanes for questions are taken: expected to be asked again", status=503)
        target = self.pool.fork(lane)
        self._sessions[target] = self._sessions[lane].moved(target)
        self._forks.add(target)
        return target

    def release(self, lane: int) -> None:
        """Frees a lane."""
        self._forks.discard(lane)
        self._sessions.pop(lane).close()

    def extract(self, lane: int) -> Any:
        """The state of a lane on the host, as numpy arrays."""
        return jax.device_get(self.pool.extract(lane))

    def insert(self, state: Any, options: StreamOptions) -> int:
        """A lane with a stream that `extract` gave."""
        lane = self.open(options)
        self.pool.insert(lane, state)
        return lane

    def resume(self, lane: int, *, chunks: int) -> None:
        """Says how many chunks an inserted stream has seen: its query has had its turn."""
        self._sessions[lane].chunks = chunks

    def like(self) -> Any:
        """The shapes of what `extract` gives."""
        sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        shapes = jax.eval_shape(lambda pool: engine.extract(pool, 0), self.pool.state)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes)

    def change(self, lane: int, before: StreamOptions, after: StreamOptions) -> None:
        """New window, sampling, system prompt and query of a lane, from its next chunk on."""
        session = self._sessions[lane]
        try:
            session.reconfigure(self._stream_settings(after), after.sampling)
        except (ConfigError, StreamError) as error:
            raise RequestError("bad_value", str(error), param="svlm") from None

    # ------------------------------------------------------------------------------------------- seconds

    def run(self, jobs: Sequence[Job]) -> Batch:
        """Runs the chunks of several lanes as one program. What is wrong with one lane's chunk leaves the others alone."""
        batch = Batch(jobs, [()] * len(jobs), [None] * len(jobs), [None] * len(jobs))
        turns = {}
        for i, job in enumerate(jobs):
            try:
                turns[job.lane] = self._turn(job)
            except SvlmError as error:
                batch.errors[i] = error
        if not turns:
            return batch
        outputs, times = self.pool.step(self.vlm.params, turns)
        for i, job in enumerate(jobs):
            if job.lane in turns:
                try:
                    timing = Timing(job.chunk.read_ms, *times)
                    batch.captions[i] = self._sessions[job.lane].finish(job.chunk, outputs[job.lane], timing)
                    batch.tokens[i] = batch.captions[i].tokens
                except SvlmError as error:
                    batch.errors[i] = error
        return batch

    def text(self, tokens: Sequence[int]) -> str:
        """The words of a reply so far."""
        return next(iter(self._sessions.values())).text(tuple(tokens)) if self._sessions else ""

    def usage(self, batch: Batch, row: int) -> Mapping[str, Any]:
        """Tokens held by kind after a row's second, as (used, limit)."""
        return dict(batch.captions[row].usage)

    def assembler(self, begin: float) -> FrameAssembler:
        return FrameAssembler(fps=self.settings.fps, count=self._count, size=self.settings.size, begin=begin)

    @property
    def resize(self) -> ResizeRule:
        """How pictures of any size reach the model: all at the server's one size."""
        return dataclasses.replace(self.vlm.resize_rule(), size=self.settings.size)

    def about(self) -> dict[str, Any]:
        """What a client must know of the pictures that the model sees."""
        height, width = self.settings.size
        return {"fps": self.settings.fps, "chunk_seconds": self.chunk_seconds, "height": height, "width": width}

    def device_bytes(self) -> int:
        """Bytes in use on the device; of live arrays where the device does not say."""
        device = jax.devices()[0]
        stats = device.memory_stats()
        return int(stats["bytes_in_use"]) if stats else sum(array.nbytes for array in jax.live_arrays())

    def warm_up(self, tell: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Compiles everything before the first stream: each size of the ladder, a question, and the lanes' own programs."""
        options = StreamOptions(system="", query=None, window=self.settings.window, sampling=self.settings.sampling)
        taken = [self.open(options) for _ in range(self.lanes)]
        chunk = Chunk(self._blank(), 0.0, self.chunk_seconds)
        for i, rows in enumerate(self.ladder):
            tell(i, len(self.ladder) + 1)
            self.run([Job(lane, chunk, options, 0) for lane in taken[:rows]])
        twin = self.fork(taken[0])
        self.run([Job(twin, chunk, options, 0, question="?", cap=1)])
        for words in ("", "word " * self.settings.prompt_tokens):  # system prompts of every length that lanes hold
            self._warm_system(taken[0], options, words)
        self.insert_back(taken[0])
        for lane in [twin, *taken]:
            self.release(lane)
        tell(len(self.ladder) + 1, len(self.ladder) + 1)

    def _warm_system(self, lane: int, options: StreamOptions, words: str) -> None:
        encode = self._sessions[lane].prompt.encode
        while len(encode(words, literal=True)) > self.settings.prompt_tokens - 16:
            words = words[: len(words) // 2]
        self.change(lane, options, dataclasses.replace(options, system=words))

    def insert_back(self, lane: int) -> None:
        """Reads a lane out and puts it back, which compiles both."""
        self.pool.insert(lane, self.extract(lane))

    # ------------------------------------------------------------------------------------------- host side of a lane

    def _turn(self, job: Job) -> Any:
        session = self._sessions[job.lane]
        if job.question is None:
            return session.prepare(job.chunk)
        cap = job.cap or self.settings.answer_tokens
        return session.prepare_question(job.chunk, job.question, most=self.settings.question_tokens, cap=cap)

    def _session(self, options: StreamOptions, pool: LanePool | None) -> Session:
        session = Session(self.vlm, self._stream_settings(options), pool)
        session.prompt.max_query = self.settings.query_tokens
        return session

    def _stream_settings(self, options: StreamOptions) -> StreamSettings:
        return StreamSettings(
            window=options.window,
            sampling=options.sampling,
            fps=self.settings.fps,
            chunk_seconds=self.settings.chunk_seconds,
            query=options.query,
            system=options.system,
            previous_text=options.previous_text,
            seed=options.seed,
            max_pixels=self.settings.max_pixels,
            implementation=self.settings.implementation,
        )

    def _bounds(self) -> SamplingBounds:
        """Room for every sampling that a stream or a question may ask for."""
        settings, sampling = self.settings, self.settings.sampling
        most = max(sampling.max_new_tokens, settings.answer_tokens)
        return SamplingBounds(most, settings.top_k, sampling.suppress, sampling.unpenalized)

    def _blank(self) -> np.ndarray:
        return np.zeros((self._count, 3, *self.settings.size), np.uint8)
