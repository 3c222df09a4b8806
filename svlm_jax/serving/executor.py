"""The device side of a server: a pool of lanes of one shape, and the programs that run the rows that are due.

Everything that a stream may change is a number or a token, so that the programs are compiled once, before the first stream:
a second for 1, 2, 4, … rows, the same with room for a question, and the small ones that open, fork, read and free a lane.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from pallas_kernels.dispatch import Implementation
from svlm_jax.cache.ring import Tokens
from svlm_jax.cache.window import WindowConfig
from svlm_jax.engine import lanes as engine
from svlm_jax.engine.sampling import Sampling, SamplingBounds
from svlm_jax.errors import ConfigError, RequestError, StreamError, SvlmError
from svlm_jax.models.resize_rule import ResizeRule
from svlm_jax.serving.frames import FrameAssembler
from svlm_jax.serving.stream import StreamOptions
from svlm_jax.streaming.caption import Caption, Timing
from svlm_jax.streaming.pool import LanePool, RunningReplies
from svlm_jax.streaming.session import Session
from svlm_jax.streaming.settings import StreamSettings
from svlm_jax.streaming.vlm import StreamingVLM
from svlm_jax.video.chunk import Chunk
from svlm_jax.video.source import frames_per_chunk

MOST_ROWS = 64  # of one program
HEADROOM = 0.9  # share of the time that streams may take: the rest is for questions, snapshots and bad luck
LATE = 99_999.0  # s; turns that are not later, and have no query, are run without the padding for those
NEWEST = 0.1  # weight of the newest tick in what is known of its size


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
      cache_dtype: of keys and values; None = what the weights are computed in.
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
    cache_dtype: str | None = None

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
    """Replies of the rows of one program, as far as they are decoded.

    Attributes:
      tokens: of each row so far. captions: of the rows that are finished. errors: what is wrong with a row alone.
      replies: on the device; None when every row is wrong. began: by `time.perf_counter`.
    """

    jobs: Sequence[Job]
    tokens: list[tuple[int, ...]]
    captions: list[Caption | None]
    errors: list[SvlmError | None]
    replies: RunningReplies | None
    began: float


class Executor:
    """A model with its pool; all methods belong to one thread."""

    def __init__(self, vlm: StreamingVLM, settings: PoolSettings) -> None:
        self.vlm, self.settings = vlm, settings
        self.lanes, self.spare = settings.lanes, settings.spare
        self.chunk_seconds = settings.chunk_seconds
        self._count = frames_per_chunk(settings.fps, settings.chunk_seconds, vlm.config.vision.grid_frames)
        self.ladder = rungs(min(settings.lanes, MOST_ROWS))
        widest = StreamOptions(system="", query=None, window=settings.window, sampling=settings.sampling)
        config = self._session(widest, None).capacity(
            self._blank(),
            opening=settings.prompt_tokens,
            query=settings.query_tokens + settings.question_tokens + settings.answer_tokens,
        )
        config = dataclasses.replace(config, sampling=self._bounds())
        self.pool = LanePool(config, settings.lanes + settings.spare, clip_shape=self._blank().shape)
        self._short = self._session(widest, None).turn_length(self._blank(), LATE)
        self.seconds_by_rows: dict[int, float] = {}  # that a tick takes, by the rows of its program
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

    @property
    def capacity(self) -> int:
        """Streams that the device has been measured to carry in real time, at most as many as there are lanes."""
        if not self.seconds_by_rows:
            return self.lanes
        best = max(rows / seconds for rows, seconds in self.seconds_by_rows.items())
        return min(max(int(HEADROOM * self.chunk_seconds * best), 1), self.lanes)

    def took(self, count: int, seconds: float) -> None:
        """Takes down how long a tick of so many streams took."""
        rows = next(rows for rows in self.ladder if rows >= count)
        known = self.seconds_by_rows.get(rows, seconds)
        self.seconds_by_rows[rows] = known + NEWEST * (seconds - known)

    def open(self, options: StreamOptions) -> int:
        """A lane with a fresh stream. RequestError when all are taken, or when the options do not fit the lanes."""
        if self.streams >= self.lanes:
            raise RequestError(
                "session_capacity_exceeded",
                f"{self.lanes} streams run already: expected a free lane, try again later",
                status=503,
            )
        self._check_query(options)
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
        self._check_query(after)
        try:
            session.reconfigure(self._stream_settings(after), after.sampling)
        except (ConfigError, StreamError) as error:
            raise RequestError("bad_value", str(error), param="svlm") from None

    # ------------------------------------------------------------------------------------------- seconds

    def run(self, jobs: Sequence[Job], *, trim: bool = True) -> Batch:
        """Runs the chunks of several lanes to their ends, as one program."""
        batch = self.begin(jobs, trim=trim)
        while self.speaking(batch):
            self.extend(batch, self.pool.config.sampling.max_new_tokens)
        for row in range(len(jobs)):
            self.finish(batch, row)
        return batch

    def begin(self, jobs: Sequence[Job], *, trim: bool = True) -> Batch:
        """Reads the chunks of several lanes, up to the first token of each reply, as one program.

        What is wrong with one lane's chunk leaves the others alone. trim: without padding that no turn among them needs.
        """
        batch = Batch(jobs, [()] * len(jobs), [None] * len(jobs), [None] * len(jobs), None, time.perf_counter())
        turns = {}
        for row, job in enumerate(jobs):
            try:
                turns[job.lane] = self._turn(job)
            except SvlmError as error:
                batch.errors[row] = error
        if turns:
            asked = any(job.question is not None for job in jobs)  # those have a length of their own
            if trim and not asked and all(turn.valid.sum() <= self._short for turn, _ in turns.values()):
                turns = {lane: (trimmed(turn, self._short), frames) for lane, (turn, frames) in turns.items()}
            batch.replies = self.pool.begin(self.vlm.params, turns)
            self._read(batch)
        return batch

    def extend(self, batch: Batch, tokens: int) -> None:
        """Decodes up to so many more tokens of each row. Other lanes may have run meanwhile."""
        if batch.replies is not None and batch.replies.speaking:
            batch.replies.extend(self.vlm.params, tokens)
            self._read(batch)

    def speaking(self, batch: Batch) -> set[int]:
        """The rows that have more to say."""
        lanes = set() if batch.replies is None else set(batch.replies.speaking)
        return {row for row, job in enumerate(batch.jobs) if job.lane in lanes}

    def leave(self, batch: Batch, row: int) -> None:
        """Lets a row's reply end with what it has said; its lane may be released."""
        if batch.replies is not None:
            batch.replies.leave(batch.jobs[row].lane)

    def finish(self, batch: Batch, row: int) -> None:
        """Makes the caption of a row that is not open any more; or its error, when its cache is full."""
        if batch.errors[row] is not None or batch.replies is None:
            return
        job = batch.jobs[row]
        timing = Timing(job.chunk.read_ms, 1e3 * (time.perf_counter() - batch.began))
        try:
            batch.captions[row] = self._sessions[job.lane].finish(job.chunk, batch.replies.so_far(job.lane), timing)
        except SvlmError as error:
            batch.errors[row] = error

    def _read(self, batch: Batch) -> None:
        assert batch.replies is not None
        for row, job in enumerate(batch.jobs):
            if batch.errors[row] is None:
                out = batch.replies.so_far(job.lane)
                batch.tokens[row] = tuple(out.token[0, : out.count[0]].tolist())

    def text(self, batch: Batch, row: int) -> str:
        """The words of a row's reply, which is over."""
        return self._sessions[batch.jobs[row].lane].text(batch.tokens[row])

    def words(self, batch: Batch, row: int) -> str:
        """The words of a row's reply so far, but for those that a later token may still change."""
        return self._sessions[batch.jobs[row].lane].words(batch.tokens[row])

    def usage(self, batch: Batch, row: int) -> Mapping[str, Any]:
        """Tokens held by kind after a row's second, as (used, limit)."""
        caption = batch.captions[row]
        return {} if caption is None else dict(caption.usage)

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
        chunk, steps = Chunk(self._blank(), 0.0, self.chunk_seconds), len(self.ladder) + 1
        for i, rows in enumerate(self.ladder):
            tell(i, steps)
            jobs = [Job(lane, chunk, options, 0) for lane in taken[:rows]]
            for trim in (False, True):
                self.run(jobs, trim=trim)
            began = time.perf_counter()
            self.run(jobs)
            self.took(len(jobs), time.perf_counter() - began)
        tell(len(self.ladder), steps)
        twins = [self.fork(taken[0]) for _ in range(self.spare)]
        for rows in rungs(self.spare):
            self.run([Job(twin, chunk, options, 0, question="?") for twin in twins[:rows]])
        for words in ("", "word " * self.settings.prompt_tokens):  # system prompts of every length that lanes hold
            self._warm_system(taken[0], options, words)
        self.insert_back(taken[0])
        for lane in [*twins, *taken]:
            self.release(lane)
        tell(steps, steps)

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

    def _check_query(self, options: StreamOptions) -> None:
        """RequestError for a query that no turn has room for; its first chunk would end the stream otherwise."""
        count, most = len(self.vlm.tokenizer.encode(options.query or "", literal=True)), self.settings.query_tokens
        if count > most:
            raise RequestError("bad_value", f"the query has {count} tokens: expected at most {most}", param="svlm.query")

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
            cache_dtype=self.settings.cache_dtype,
        )

    def _bounds(self) -> SamplingBounds:
        """Room for every sampling that a stream or a question may ask for."""
        settings, sampling = self.settings, self.settings.sampling
        most = max(sampling.max_new_tokens, settings.answer_tokens)
        return SamplingBounds(most, settings.top_k, sampling.suppress, sampling.unpenalized)

    def _blank(self) -> np.ndarray:
        return np.zeros((self._count, 3, *self.settings.size), np.uint8)


def rungs(most: int) -> tuple[int, ...]:
    """Numbers of rows that programs are made for: powers of two, the last of them with room for `most`."""
    return tuple(1 << i for i in range((most - 1).bit_length() + 1))


def trimmed(turn: Tokens, length: int) -> Tokens:
    """A turn without some of its padding."""
    cut: Tokens = jax.tree.map(lambda x: x[..., :length], turn)
    return cut
