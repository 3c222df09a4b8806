"""Questions about a stream, at any time: frames in, answers out. All compute is in `remember` and `answer`.

recall = vlm.qa_session(memory=memory_policy("vsb+par", budget=12_000))
for seconds in recall.watch("match.mp4"):
    ...
answer = recall.ask("Who scored first?")
print(answer.text, answer.seconds)
print(recall.ask("And when?", follows=answer).text)
"""

import copy
import dataclasses
import math
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np

from pallas_kernels.dispatch import Implementation
from svlm_jax.cache import policies
from svlm_jax.cache.memory_state import MemoryState, memory_shape
from svlm_jax.cache.policies.base import MemoryPolicy
from svlm_jax.checkpoint.streaming_block import stop_ids, suppressed_ids
from svlm_jax.engine import answer as answering
from svlm_jax.engine import remember
from svlm_jax.engine.answer import Question, QuestionState
from svlm_jax.engine.remember import Clip, QAConfig
from svlm_jax.engine.sampling import Sampling, key_of
from svlm_jax.errors import CheckpointError, ConfigError, StreamError
from svlm_jax.host.schema import Choice, Kind, ListOf, Nullable, Number, Object, Record, Text, Whole
from svlm_jax.prompt.commentary import SYSTEM
from svlm_jax.prompt.qa import Answer, Dialogue, Turn
from svlm_jax.prompt.template import answer_opening
from svlm_jax.streaming import saved
from svlm_jax.streaming.loaded import LoadedVLM, check_size
from svlm_jax.streaming.settings import MEMORY_DTYPES, check_cache_dtype, sampling_from_json
from svlm_jax.video.chunk import Chunk
from svlm_jax.video.source import Source, open_source

PIECE = 64  # questions are padded to a multiple of so many tokens: few programs for all of them


@dataclasses.dataclass(frozen=True)
class QASettings:
    """Everything about watching for questions that is not the model.

    Attributes:
      memory: what is remembered.
      fps: frames a second that the model sees (LiveVLM: 0.5, and 0.2 for videos of more than half an hour).
      max_pixels: of a frame; None = as the checkpoint was trained, else the published most. Larger frames are refused.
      sampling: how answers are chosen; None = greedy, up to `max_new_tokens`.
      system: the system turn. seed: same seed, same answers.
      cache_dtype: of keys and values; None = that of the weights.
      implementation: attention implementation, see `pallas_kernels.dispatch`.
    """

    memory: MemoryPolicy = dataclasses.field(default_factory=policies.memory_policy)
    fps: float = 0.5
    max_pixels: int | None = None
    sampling: Sampling | None = None
    max_new_tokens: int = 64
    system: str = SYSTEM
    seed: int = 42
    cache_dtype: str | None = None
    implementation: Implementation = "auto"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise ConfigError(f"fps={self.fps}: expected a finite number above 0")
        check_cache_dtype(self.cache_dtype, MEMORY_DTYPES)

    @classmethod
    def from_json(cls, data: Any, where: str) -> "QASettings":
        """What `QASession.save` wrote, from a file that `where` names; CheckpointError when it does not hold that."""
        fields = Record(data, where, CheckpointError).fields(_SETTINGS)
        if "memory" in fields:
            fields["memory"] = policies.from_json(fields["memory"], f"{where}, memory")
        if fields.get("sampling") is not None:
            fields["sampling"] = sampling_from_json(fields["sampling"], f"{where}, sampling")
        return cls(**fields)


_SETTINGS: Mapping[str, Kind[Any]] = {
    "memory": Object(),
    "fps": Number(above=0, most=1000),
    "max_pixels": Nullable(Whole(least=1)),
    "sampling": Nullable(Object()),
    "max_new_tokens": Whole(least=1, most=10**6),
    "system": Text(),
    "seed": Whole(),
    "cache_dtype": Nullable(Choice(MEMORY_DTYPES)),
    "implementation": Choice(get_args(Implementation)),
}


class QASession:
    """One stream that is watched in order to be asked about. Its memory is built when the first chunk shows its pictures."""

    def __init__(self, vlm: LoadedVLM, settings: QASettings) -> None:
        self.vlm, self.settings = vlm, settings
        generation = vlm.checkpoint.generation_config
        self.sampling = settings.sampling or Sampling(
            temperature=0.0,
            top_k=0,
            repetition_penalty=1.0,
            max_new_tokens=settings.max_new_tokens,
            suppress=suppressed_ids(generation),
        )
        opening = answer_opening(vlm.checkpoint.folder)
        self.dialogue = Dialogue(vlm.config, vlm.tokenizer.encode, settings.system, stop_ids(generation), opening=opening)
        self.most_pixels, self.resize = settings.max_pixels or vlm.most_pixels, vlm.resize_rule(settings.max_pixels)
        self.position = 0.0  # stream seconds watched so far
        self._frames = 0  # ... and frames
        self._pending: list[tuple[float, np.ndarray]] = []  # frames of the next clip, each with its second
        self._config: QAConfig | None = None
        self._state: MemoryState | None = None
        self._now: MemoryState | None = None  # the memory with the pending frames, if it has been asked for

    @property
    def config(self) -> QAConfig:
        """What the programs were compiled for. Raises StreamError before the first chunk, which decides it."""
        if self._config is None:
            raise StreamError("the stream has not seen any video yet, so it has no memory")
        return self._config

    @property
    def state(self) -> MemoryState:
        """The memory of all whole clips. The next one donates it."""
        if self._state is None:
            raise StreamError("the stream has not seen any video yet, so it has no memory")
        return self._state

    # ------------------------------------------------------------------------------------------- watching

    def open(self, source: Any, **options: Any) -> Source:
        """Opens a source as this model sees it. options: more of `open_source`'s."""
        fps = self.settings.fps
        own = {"fps": fps, "chunk_seconds": self.resize.grid_frames / fps, "resize": self.resize}
        return open_source(source, **{**own, **options})

    def watch(self, source: Any) -> Iterator[float]:
        """Watches a source, open or as `open_source` takes it, to its end; yields the stream time after each chunk."""
        if not isinstance(source, Source):
            with self.open(source) as opened:
                yield from self.watch(opened)
            return
        for chunk in source:
            self.feed(chunk)
            yield self.position

    def feed(self, chunk: Chunk) -> None:
        """Shows the model one chunk of any number of frames. They are read when they make up a clip, or for a question."""
        count = len(chunk.frames)
        self.begin(chunk)
        self._check(chunk)
        self._frames += count
        self._now = None
        for i, frame in enumerate(chunk.frames):
            self._pending.append((chunk.start + (chunk.end - chunk.start) * i / count, frame))
            if len(self._pending) > self._frames_a_clip:
                self._pending.pop(0)  # only the control of the last frames lets them pile up
            if len(self._pending) == self._frames_a_clip and not self.settings.memory.afresh:
                self._make_room(len(self._pending), chunk.start)
                self._state = _watch(self.vlm.params, self.state, self._clip(), config=self.config)
                self._pending = []
        self.position = chunk.end

    def begin(self, chunk: Chunk) -> None:
        """Builds the memory for frames like those of `chunk`, if there is none yet: what cannot work is said now."""
        if self._config is None:
            check_size(self.most_pixels, chunk.frames.shape, chunk.start)
            self._build(chunk.frames.shape)

    def _current(self) -> MemoryState:
        """The memory of everything seen, pending frames included; the stream itself keeps waiting for their clip."""
        if self._now is None:
            self._now = self.state
            if self._pending:
                self._make_room(len(self._pending), self.position)
                self._now = _watch_aside(self.vlm.params, self.state, self._clip(), config=self.config)
        return self._now

    def _clip(self) -> Clip:
        """The pending frames, padded to a whole clip by repeating the last."""
        config, each = self.config, self._frames_a_grid
        missing = self._frames_a_clip - len(self._pending)
        frames = np.stack([frame for _, frame in self._pending] + [self._pending[-1][1]] * missing)
        seconds = [second for second, _ in self._pending] + [self._pending[-1][0]] * missing
        grids = -(-len(self._pending) // each)
        return Clip(
            frames=jnp.asarray(frames[None]),
            second=jnp.asarray([seconds[::each]], jnp.float32),
            valid=jnp.arange(config.shape.grids)[None] < grids,
            token=self._clip_tokens(seconds) if config.shape.stamped else None,
        )

    def _clip_tokens(self, seconds: Sequence[float]) -> jax.Array:
        """The ids of a clip whose grids have time stamps: each tells the mean time of its first and last frame."""
        shape, each = self.config.shape, self._frames_a_grid
        grids = (seconds[first : first + each] for first in range(0, len(seconds), each))
        ids = [self.dialogue.grid_tokens((grid[0] + grid[-1]) / 2, shape.rows * shape.columns) for grid in grids]
        return jnp.asarray([[token for grid in ids for token in grid]], jnp.int32)

    def _make_room(self, frames: int, second: float) -> None:
        """A memory that keeps everything must end when its budget does."""
        config = self.config
        if config.memory.forgets:
            return
        held = int(self.state.count[0]) + -(-frames // self._frames_a_grid) * config.shape.cells
        if held > config.shape.budget:
            raise StreamError(
                f"the memory of {config.shape.budget} tokens is full at {second:.0f} s: expected a larger budget, or a policy "
                "that forgets"
            )

    # ------------------------------------------------------------------------------------------- asking

    def ask(
        self,
        question: str,
        *,
        choices: Sequence[str] | None = None,
        follows: Answer | None = None,
    ) -> Answer:
        """The model's answer, from everything seen so far. The stream is left untouched.

        Args:
          choices: options of a multiple-choice question; the answer is then the letter that the model finds likeliest.
          follows: an earlier answer that this question refers to; its questions and answers stand before this one.
        Raises:
          StreamError: no video yet.
          ConfigError: an empty question, or fewer than two choices.
        """
        if choices is None:
            *_, answer = self.answer(question, follows=follows)
            assert isinstance(answer, Answer)
            return answer
        turn = self.dialogue.turn(question, choices, follows)
        clock, reading = self._ready(question, turn)
        return self._answered(question, turn, clock, reading, *self._choose(reading, len(choices)))

    def answer(
        self, question: str, *, follows: Answer | None = None, slice_tokens: int | None = None
    ) -> Iterator[str | Answer]:
        """`ask` in slices of so many tokens: yields the words so far behind each slice but the last, then the answer.

        slice_tokens: None = the whole answer at once.
        """
        turn = self.dialogue.turn(question, None, follows)
        clock, reading = self._ready(question, turn)
        tokens: tuple[int, ...] = ()
        for tokens, more in self._say(reading, slice_tokens or self.config.sampling.max_new_tokens):
            if more:
                yield self._text(tokens)
        yield self._answered(question, turn, clock, reading, tokens, None)

    def _ready(self, question: str, turn: Turn) -> tuple[tuple[float, float, float], QuestionState]:
        """A question that has been read; and when that began, when pending frames had been seen, and when it ended."""
        began = time.perf_counter()
        if self._state is None:
            raise StreamError(f"the question {question!r} came before any video: expected at least one frame to ask about")
        jax.block_until_ready(self._current())
        caught_up = time.perf_counter()
        reading = jax.block_until_ready(self.read(turn))
        return (began, caught_up, time.perf_counter()), reading

    def _answered(
        self,
        question: str,
        turn: Turn,
        clock: tuple[float, float, float],
        reading: QuestionState,
        tokens: tuple[int, ...],
        scores: tuple[float, ...] | None,
    ) -> Answer:
        began, caught_up, first = clock
        text = self._text(tokens)
        return Answer(
            question=question,
            text=text,
            tokens=tokens,
            at=self.position,
            read=_seconds_read(reading),
            choice=None if scores is None else int(np.argmax(scores)),
            scores=scores,
            history=(*turn.history, (turn.text, text)),
            catch_up_ms=1e3 * (caught_up - began),
            first_token_ms=1e3 * (first - caught_up),
            total_ms=1e3 * (time.perf_counter() - began),
        )

    def _text(self, tokens: Sequence[int]) -> str:
        return self.vlm.tokenizer.decode_reply([token for token in tokens if token not in self.dialogue.stop]).strip()

    def read(self, turn: Turn) -> QuestionState:
        """A question that `dialogue.turn` made, read: what each layer reads, and the scores of the answer's first token."""
        return _read(self.vlm.params, self._current(), padded(turn), config=self.config)

    def _say(self, reading: QuestionState, slice_tokens: int) -> Iterator[tuple[tuple[int, ...], bool]]:
        """The tokens so far behind each slice, and whether there is more to say."""
        key, limits = key_of(self.settings.seed)[None], jax.tree.map(lambda x: x[None], self.sampling.limits)
        answer, more = _first(reading, key, limits, config=self.config), True
        while more:
            answer, speaking = _extend(
                self.vlm.params, reading, answer, key, limits, np.int32(slice_tokens), config=self.config
            )
            said, count, more = jax.device_get((answer.said.token[0], answer.said.count[0], speaking[0]))
            yield tuple(said[:count].tolist()), bool(more)

    def _choose(self, reading: QuestionState, count: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """The likeliest letter and the probability of each, among the letters of the choices."""
        ids = self.dialogue.letter_ids(count)
        scores = np.asarray(jax.nn.softmax(reading.logits[0][np.asarray(ids)]))
        return (ids[int(np.argmax(scores))],), tuple(float(score) for score in scores)

    # ------------------------------------------------------------------------------------------- the memory

    def fork(self) -> "QASession":
        """A second stream that stands where this one stands; what it watches does not touch this one."""
        twin = copy.copy(self)
        twin._pending, twin._now = list(self._pending), None
        if self._state is not None:
            twin._state = jax.tree.map(jnp.copy, self._state)
        return twin

    def save(self, folder: str | pathlib.Path) -> None:
        """Saves the stream so that `StreamingVLM.resume_qa` goes on as if it had never stopped; see `saved.save`.

        Raises StreamError when it has not seen any video yet.
        """
        about = {
            "settings": {**dataclasses.asdict(self.settings), "memory": policies.to_json(self.settings.memory)},
            "sampling": dataclasses.asdict(self.sampling),
            "picture": self.picture,
            "frames": self._frames,
            "position": self.position,
            "pending": [second for second, _ in self._pending],
        }
        pending = np.zeros((self._frames_a_clip, *self.picture), np.uint8)  # frames of the clip that is not whole yet
        for i, (_, frame) in enumerate(self._pending):
            pending[i] = frame
        saved.save(folder, self.vlm, saved.QUESTIONS, about, {"memory": self.state, "pending": jnp.asarray(pending)})

    @classmethod
    def load(cls, vlm: "LoadedVLM", folder: str | pathlib.Path, **changes: Any) -> "QASession":
        """See `StreamingVLM.resume_qa`. Raises CheckpointError when the folder holds no such stream of this model."""
        version = saved.find(folder)
        about = saved.read_about(version / saved.STREAM, *saved.model_of(vlm), saved.QUESTIONS)
        settings = QASettings.from_json(about.get("settings", Object()), f"{about.where}, settings")
        session = cls(vlm, dataclasses.replace(settings, **changes))
        session.sampling = sampling_from_json(about.get("sampling", Object()), f"{about.where}, sampling")
        channels, height, width = picture = about.get("picture", ListOf(Whole(least=1, most=2**14), least=3, most=3))
        if channels != 3 or math.prod(picture) * session._frames_a_clip > 2**31:
            raise about.wrong("picture", picture, "3 channels, height, width")
        seconds = about.get("pending", ListOf(Number(least=0), most=session._frames_a_clip))
        session._build((1, channels, height, width))
        like: dict[str, Any] = {
            "memory": session.state,
            "pending": jnp.zeros((session._frames_a_clip, *picture), jnp.uint8),
        }
        loaded = saved.arrays(version, like)
        session._state, frames = loaded["memory"], np.asarray(loaded["pending"])
        session._pending = [(second, frames[i]) for i, second in enumerate(seconds)]
        session._frames, session.position = about.get("frames", Whole(least=0)), about.get("position", Number(least=0))
        return session

    @property
    def picture(self) -> tuple[int, ...]:
        """The shape (3, height, width) of the stream's pictures. Raises StreamError before the first one."""
        if self._state is None:
            raise StreamError("the stream has not seen any video yet, so it has no pictures")
        return self._picture

    @property
    def _frames_a_grid(self) -> int:
        return self.dialogue.frames_a_grid

    @property
    def _frames_a_clip(self) -> int:
        return self.settings.memory.clip_frames

    def _build(self, shape: tuple[int, ...]) -> None:
        """Chooses the capacity from the settings and the first picture, and puts the prefix into a fresh memory."""
        settings, memory = self.settings, self.settings.memory
        grid, step = self.dialogue.clip_grid((self._frames_a_clip, *shape[1:]), settings.fps)
        prefix = self.dialogue.prefix()
        seconds = self._frames_a_grid / settings.fps
        self._config = QAConfig(
            model=self.vlm.config,
            memory=memory,
            shape=memory_shape(
                memory, prefix=len(prefix), grid=grid, seconds=seconds, step=step, marks=self.dialogue.grid_marks
            ),
            stop=self.dialogue.stop,
            sampling=self.sampling.bounds,
            cache_dtype=settings.cache_dtype or str(self.vlm.dtype),
            implementation=settings.implementation,
        )
        self._picture = tuple(shape[1:])
        self._state = _begin(self.vlm.params, jnp.asarray([prefix], jnp.int32), config=self._config)

    def _check(self, chunk: Chunk) -> None:
        if chunk.frames.shape[1:] != self._picture:
            (_, h, w), (_, height, width) = chunk.frames.shape[1:], self._picture
            raise StreamError(
                f"pictures of {h}x{w} pixels at {chunk.start:.0f} s: expected {height}x{width}, as in the first chunk"
            )
        if chunk.start < self.position - 1e-3:
            raise StreamError(
                f"a chunk from {chunk.start:.1f} s: expected one from {self.position:.1f} s on, where the stream stands"
            )
        self._check_positions(chunk)

    def _check_positions(self, chunk: Chunk) -> None:
        """Positions that keep their gaps grow with the stream, beyond what a model was made for."""
        shape, most = self.config.shape, self.vlm.config.text.max_position_embeddings
        if self.config.memory.positions == "contiguous" or self.config.memory.afresh:
            return
        grids = (self._frames + len(chunk.frames)) / self._frames_a_grid
        each = shape.before + max(shape.rows, shape.columns) + shape.after if shape.stamped else shape.step or shape.cells
        if shape.prefix + grids * each > most:
            raise StreamError(
                f"positions=original needs more than the model's {most} positions at {chunk.start:.0f} s: expected "
                f"positions=contiguous, or less video"
            )


def padded(turn: Turn) -> Question:
    """A turn as the arrays of one question, at a length that few programs serve."""
    pad = -len(turn.token) % PIECE
    return Question(
        token=jnp.asarray([turn.token + [0] * pad], jnp.int32),
        valid=jnp.asarray([[True] * len(turn.token) + [False] * pad]),
        asked=jnp.asarray([turn.asked + [False] * pad]),
    )


def _seconds_read(reading: QuestionState) -> tuple[tuple[float, float], ...]:
    """(second, share of the layers that read a token seen then), in order of time."""
    shares: dict[float, int] = {}
    for read in reading.reads:
        live, second = np.asarray(read.live[0]), np.asarray(read.second[0])
        for value in np.unique(second[live & (second >= 0)]).tolist():
            shares[value] = shares.get(value, 0) + 1
    return tuple((second, count / len(reading.reads)) for second, count in sorted(shares.items()))


_begin = jax.jit(remember.begin, static_argnames="config")
_watch = jax.jit(remember.watch, static_argnames="config", donate_argnames="memory")
_watch_aside = jax.jit(remember.watch, static_argnames="config")  # the memory stays: pending frames before a question
_read = jax.jit(answering.read, static_argnames="config")
_first = jax.jit(answering.first_token, static_argnames="config")
_extend = jax.jit(answering.extend, static_argnames="config", donate_argnames="answer")
