"""A running stream on the host: chunks of video in, captions out. A session is a handle on a lane; all compute is in `step`."""

import copy
import dataclasses
import logging
import os
import pathlib
from collections.abc import Iterator
from typing import Any, Literal

import jax
import numpy as np

from svlm_jax.cache.ring import Role, Tokens, Window
from svlm_jax.cache.window import Lengths, ring_shape, slots_by_role
from svlm_jax.checkpoint.streaming_block import stop_ids
from svlm_jax.engine import commentate as compiled
from svlm_jax.engine.sampling import Sampling
from svlm_jax.engine.state import StreamState
from svlm_jax.errors import ConfigError, StreamError
from svlm_jax.host.devices import device_memory
from svlm_jax.models import registry
from svlm_jax.models.config import ClipGrid
from svlm_jax.prompt.commentary import MARKER, PromptBuilder, label, pieces
from svlm_jax.streaming import saved
from svlm_jax.streaming.caption import Caption, Timing
from svlm_jax.streaming.loaded import LoadedVLM, check_size
from svlm_jax.streaming.pool import LanePool
from svlm_jax.streaming.settings import StreamSettings
from svlm_jax.video.chunk import Chunk
from svlm_jax.video.source import Source, open_source

logger = logging.getLogger(__name__)

PIECE = 64  # tokens of the opening that go in at a time: one program for every length of history
QUESTION = 256  # tokens: questions are padded to a multiple of it, so that few programs serve all

KINDS = {
    "system": (Role.SYSTEM,),
    "previous text": (Role.PREV_OPEN, Role.PREV_WORDS, Role.PREV_CLOSE),
    "vision": (Role.PATCH,),
}


class Session:
    """One stream, in a lane of a pool. Alone it has a pool of one lane, built when the first chunk shows its pictures."""

    def __init__(self, vlm: LoadedVLM, settings: StreamSettings, pool: LanePool | None = None) -> None:
        self.vlm, self.settings = vlm, settings
        generation = vlm.checkpoint.generation_config
        self.sampling = settings.sampling or Sampling.from_generation_config(generation)
        self.most_pixels, self.resize = settings.max_pixels or vlm.most_pixels, vlm.resize_rule(settings.max_pixels)
        self.prompt = PromptBuilder(
            vlm.config,
            vlm.tokenizer.encode,
            system=settings.system,
            text_positions=settings.window.positions == "text",
            max_query=len(vlm.tokenizer.encode(settings.query, literal=True)) if settings.query else 0,
        )
        self.turns = self.prompt.turn_ids(stop_ids(generation))
        self.last: compiled.StepOutput | None = None  # what the device returned for the newest chunk
        self.chunks = 0  # since the stream began
        self.position = 0.0  # stream seconds watched so far
        self._pool = pool
        self._lane: int | None = None
        self._limits: dict[str, int] = {}
        self._grids: set[ClipGrid] = set()
        self._next_query: str | None = None  # stands in the next turn

    @property
    def pool(self) -> LanePool:
        """Where the stream lives. Raises StreamError before the first chunk, which decides it for a session alone."""
        if self._pool is None:
            raise StreamError("the stream has not seen any video yet, so it has no cache")
        return self._pool

    @property
    def config(self) -> compiled.StepConfig:
        """What the step was compiled for. Raises StreamError before the first chunk, which decides it."""
        return self.pool.config

    @property
    def lane(self) -> int:
        """The lane of the pool. Raises StreamError before the first chunk, which takes it."""
        if self._lane is None:
            raise StreamError("the stream has not seen any video yet, so it has no state")
        return self._lane

    @property
    def state(self) -> StreamState:
        """The state of the stream, one lane, as a value of its own; what is assigned is where the stream stands."""
        return self.pool.extract(self.lane)

    @state.setter
    def state(self, stream: StreamState) -> None:
        self.pool.insert(self.lane, stream)

    # ------------------------------------------------------------------------------------------- watching

    def open(self, source: Any, **options: Any) -> Source:
        """Opens a source as this stream sees it: picture size, frames a second, length of a chunk, which frames are taken.

        A file goes on where the stream stands. options: more of `open_source`'s (pace, behind, start, duration, ...).
        """
        settings = self.settings
        sampling: Literal["pts", "published"] = "published" if settings.parity else "pts"
        start = self.position if isinstance(source, str | pathlib.Path) and os.path.exists(source) else 0.0
        own = {"fps": settings.fps, "chunk_seconds": settings.chunk_seconds, "sampling": sampling, "start": start}
        return open_source(source, **{**own, "resize": self.resize, **options})

    def watch(self, source: Any) -> Iterator[Caption]:
        """Captions of a source, until it ends: an open `Source`, or what `open` takes, which is closed at the end."""
        if isinstance(source, Source):
            yield from self._watch(source)
            return
        with self.open(source) as opened:
            yield from self._watch(opened)

    def _watch(self, source: Source) -> Iterator[Caption]:
        if self.settings.duration is None and source.info.duration is not None:
            self.settings = dataclasses.replace(self.settings, duration=source.info.duration)
        for chunk in source:
            yield self.feed(chunk)

    def feed(self, chunk: Chunk, query: str | None = None) -> Caption:
        """Shows the model one chunk and returns what it says.

        Raises StreamError when the cache is too small, and for frames that are larger than the model was trained to see.

        query: stands in this turn in place of the settings' one, which has the first turn; `ask` makes room for it.
        """
        turn = self.prepare(chunk, query)
        outputs, times = self.pool.step(self.vlm.params, {self.lane: turn}, split=self.settings.split_timing)
        return self.finish(chunk, outputs[self.lane], Timing(chunk.read_ms, *times))

    def prepare(self, chunk: Chunk, query: str | None = None) -> tuple[Tokens, np.ndarray]:
        """The turn and the frames of a chunk, as `LanePool.step` takes them; `finish` must follow it."""
        grid = self.clip_grid(chunk.frames)
        self.begin(chunk)
        self._check(grid, chunk)
        if self._reset_due():
            self._open()
        if query is None and self._round() == 0:
            query = self.settings.query
        if query is None:
            query, self._next_query = self._next_query, None
        return self.prompt.turn(chunk.start, chunk.end, grid, query), chunk.frames

    def finish(self, chunk: Chunk, out: compiled.StepOutput, timing: Timing) -> Caption:
        """The caption of a chunk, from the row that the step returned for it. Raises StreamError when the cache is full."""
        self.last = out
        self.chunks += 1
        self.position = chunk.end
        if int(out.left[0]) < 0:
            raise StreamError(
                f"the cache of {self.config.ring.slots} slots is full at {chunk.end:.0f} s: expected a stream of at most "
                f"{self.settings.duration} s, or a window that forgets (memory=stream, with sink and tail)"
            )
        tokens = tuple(int(token) for token in np.asarray(out.token[0])[: int(out.count[0])])
        return Caption(
            chunk.start,
            chunk.end,
            self.text(tokens),
            tokens,
            timing,
            self._usage(np.asarray(out.usage[0])),
            chunk.lag,
            chunk.dropped,
        )

    def begin(self, chunk: Chunk) -> None:
        """Builds the cache for frames like those of `chunk`, if there is none yet: what cannot work is said now."""
        if self._lane is None:
            check_size(self.most_pixels, chunk.frames.shape, chunk.start)
            self._build(self.clip_grid(chunk.frames), chunk.frames.shape)

    def ask(self, question: str, chunk: Chunk, *, max_new_tokens: int) -> Caption:
        """What the model answers, greedily, when it is asked in the turn of `chunk`; the stream stays where it is.

        The question and its answer stand on a fork, in the `qa_token_budget` that the settings keep for them. Raises
        ConfigError when they have no room there.
        """
        length = len(self.prompt.encode(question, literal=True))
        if length + max_new_tokens > self.settings.qa_token_budget:
            raise ConfigError(
                f"a question of {length} tokens with an answer of up to {max_new_tokens}: expected at most "
                f"qa_token_budget={self.settings.qa_token_budget} tokens together"
            )
        self.begin(chunk)
        sampling = dataclasses.replace(self.sampling, temperature=0.0, repetition_penalty=1.0, max_new_tokens=max_new_tokens)
        twin = self.fork(sampling)
        twin.prompt = copy.copy(self.prompt)
        twin.prompt.max_query = -(-length // QUESTION) * QUESTION
        return twin.feed(chunk, question)

    def turn_length(self, frames: np.ndarray, end: float) -> int:
        """Tokens of the longest turn without a query for chunks like `frames` that end at `end` seconds or before."""
        unused = self.prompt.label_length - len(self.prompt.encode(label(end - self.settings.chunk_seconds, end)))
        return self.prompt.turn_length(self.clip_grid(frames)) - self.prompt.max_query - unused

    def prepare_question(self, chunk: Chunk, question: str, *, most: int, cap: int) -> tuple[Tokens, np.ndarray]:
        """`prepare` with a question in the turn of `chunk`, to be answered greedily in at most `cap` tokens.

        For a fork that ends with the answer. most: tokens that any question may have; turns of one length are one program.
        """
        length = len(self.prompt.encode(question, literal=True))
        if length > most:
            raise ConfigError(f"a question of {length} tokens: expected at most {most}")
        self.prompt = copy.copy(self.prompt)
        self.prompt.max_query = most
        self.sampling = dataclasses.replace(self.sampling, temperature=0.0, repetition_penalty=1.0, max_new_tokens=cap)
        self._configure()
        return self.prepare(chunk, question)

    def reconfigure(self, settings: StreamSettings, sampling: Sampling) -> None:
        """Another window, sampling, system prompt and query, from the next chunk on; nothing is compiled for them.

        The system prompt is read anew, as if it had stood there from the beginning; what was said and seen since stays as it
        was computed. A query stands in the next turn. Raises ConfigError for what the lane has no room for.
        """
        before, settings_before, sampling_before = self.prompt.system, self.settings, self.sampling
        self.settings, self.sampling, self.prompt.system = settings, sampling, settings.system
        try:
            self.pool.admit(
                dataclasses.replace(self.capacity(np.empty(self._clip_shape, np.uint8)), sampling=self.config.sampling)
            )
            self._configure()
        except ConfigError:
            self.settings, self.sampling, self.prompt.system = settings_before, sampling_before, before
            raise
        if settings.system != before:
            opening = self.opening()
            system = jax.tree.map(lambda x: x[..., np.asarray(opening.role) == Role.SYSTEM], opening)
            self.pool.replace_system(self.vlm.params, self.lane, system)
        if settings.query != settings_before.query:
            self._next_query = settings.query

    def _configure(self) -> None:
        """Writes the window and the sampling of the settings into the lane."""
        self.pool.configure(self.lane, self._window_limits(), self.config.sampling.limits(self.sampling))

    def _window_limits(self) -> Window:
        settings, cut = self.settings, len(self.turns.marker) if self.settings.parity else 0
        return settings.window.limits(settings.chunk_seconds, settings.duration, published_marker_cut=cut)

    def moved(self, lane: int) -> "Session":
        """A handle on a fork of this stream, which somebody has put into `lane`."""
        twin = copy.copy(self)
        twin._grids, twin._lane = set(self._grids), lane
        return twin

    def words(self, tokens: tuple[int, ...]) -> str:
        """The words of a reply that goes on behind `tokens`, but for those that a later token may still change."""
        return self.text(tokens).rstrip(MARKER)  # spaces and dots may become the marker, which is not said

    def text(self, tokens: tuple[int, ...]) -> str:
        """The words of a reply."""
        said = [token for token in tokens if token not in self.turns.stop]
        if self.settings.parity:  # the published code drops four characters, marker or not
            return self.vlm.tokenizer.decode(said)[: -len(MARKER)]
        return self.vlm.tokenizer.decode_reply(said).removesuffix(MARKER).strip()

    def _usage(self, by_role: np.ndarray) -> dict[str, tuple[int, int]]:
        used = {kind: int(sum(by_role[role] for role in roles)) for kind, roles in KINDS.items()}
        used["turns"] = int(by_role.sum()) - sum(used.values())
        return {kind: (used[kind], limit) for kind, limit in self._limits.items()}

    # ------------------------------------------------------------------------------------------- the cache

    def clip_grid(self, frames: np.ndarray) -> ClipGrid:
        """The tokens of a chunk's frames (F, 3, height, width). ConfigError when they do not split into tokens."""
        registry.require(self.vlm.config, "watch")
        count, _, height, width = frames.shape
        return self.vlm.config.vision.clip_grid(count, height, width, self.settings.fps)

    def start(self, frames: np.ndarray) -> None:
        """Takes a lane for a stream of chunks like `frames` (F, 3, height, width), before the first of them is there."""
        self._build(self.clip_grid(frames), frames.shape)

    def capacity(self, frames: np.ndarray, *, opening: int = 0, query: int = 0) -> compiled.StepConfig:
        """What lanes must have room for: this stream's window over chunks like `frames`, and at least so many tokens of text.

        opening: of the system turn and the previous text. query: of a query or question together with its answer.
        """
        settings, own, grid = self.settings, self.opening(), self.clip_grid(frames)
        previous = int((own.role == Role.PREV_WORDS).sum())
        lengths = Lengths(
            system=max(int((own.role == Role.SYSTEM).sum()), opening - previous),
            previous=previous,
            label=self.prompt.label_length,
            query=max(self.prompt.max_query + settings.qa_token_budget, query),
            reply=self.sampling.max_new_tokens,
            patches=grid.patches,
            marks=self.prompt.marks_length(grid),
        )
        if settings.duration is not None and settings.duration < settings.chunk_seconds:
            settings = dataclasses.replace(settings, duration=settings.chunk_seconds)
        arguments = settings.window, lengths, settings.chunk_seconds, settings.duration
        by_role = dict(slots_by_role(*arguments))
        self._limits = {kind: by_role.pop(kind) for kind in KINDS}
        self._limits["turns"] = sum(by_role.values())
        return compiled.StepConfig(
            model=self.vlm.config,
            ring=ring_shape(*arguments),
            turns=self.turns,
            sampling=self.sampling.bounds,
            cache_dtype=settings.cache_dtype or str(self.vlm.dtype),
            recompute=settings.window.memory == "recompute",
            implementation=settings.implementation,
            keep_logits=settings.keep_logits,
        )

    def _build(self, grid: ClipGrid, clip_shape: tuple[int, ...]) -> None:
        """Puts the opening into a lane; a stream alone makes a pool of one lane for its window and its pictures first."""
        config = self.capacity(np.empty(clip_shape, np.uint8))
        self._clip_shape = tuple(clip_shape)
        if self._pool is None:
            self.afford(config)
            self._pool = LanePool(config, clip_shape=self._clip_shape)
        self._pool.admit(config)
        self._lane = self._pool.take()
        self._open()

    def afford(self, config: compiled.StepConfig, lanes: int = 1) -> None:
        """Says in a sentence (ConfigError), before anything is allocated, that so many lanes can never fit the device."""
        device = next(iter(jax.tree.leaves(self.vlm.params)[0].sharding.device_set))
        needed, there = lanes * config.cache_bytes.total, device_memory(device)
        if there is not None and needed > there:
            window, streams = self.settings.window, f" in each of {lanes} streams" if lanes > 1 else ""
            raise ConfigError(
                f"a window of {window.vision:g} s of video and {window.text:g} s of text{streams} needs a cache of "
                f"{needed / 2**30:.1f} GiB: {device.device_kind} has {there / 2**30:.1f} GiB: expected a shorter one"
            )

    def opening(self) -> Tokens:
        """The system turn and the previous text, as they stand before the first chunk."""
        window = self.settings.window
        keep = None if self.settings.parity or window.uncut else (window.sink or 0, window.tail or 0)
        return self.prompt.opening(self.settings.previous_text, keep=keep)

    def _open(self) -> None:
        """Starts afresh in the lane, with the system turn and the previous text."""
        sampling, seed = self.config.sampling.limits(self.sampling), self.settings.seed + self.chunks
        opening = list(pieces(self.opening(), PIECE))
        self.pool.open(self.vlm.params, self.lane, self._window_limits(), sampling, seed, opening)

    def _round(self) -> int:
        """Rounds since the cache was last opened."""
        return self.chunks % self._rounds_to_reset() if self._rounds_to_reset() else self.chunks

    def _rounds_to_reset(self) -> int:
        if self.settings.window.memory != "hard-reset":
            return 0
        return self.settings.window.chunk_counts(self.settings.chunk_seconds, self.settings.duration)[0]

    def _reset_due(self) -> bool:
        return self.chunks > 0 and self._rounds_to_reset() > 0 and self._round() == 0

    def _check(self, grid: ClipGrid, chunk: Chunk) -> None:
        if grid in self._grids:
            return
        check_size(self.most_pixels, chunk.frames.shape, chunk.start)
        block = self.config.ring.block
        if grid.patches > block:
            raise StreamError(
                f"pictures of {grid.h}x{grid.w} tokens at {chunk.start:.0f} s do not fit the cache: expected at most {block} "
                f"tokens a chunk, as in the first one"
            )
        if self.config.recompute and chunk.frames.shape != self._clip_shape:
            raise StreamError("the picture size changed: memory=recompute keeps clips of one size")
        if self._grids:
            logger.info("pictures of %dx%d tokens from %.0f s on: compiling for this size", grid.h, grid.w, chunk.start)
        self._grids.add(grid)

    # ------------------------------------------------------------------------------------------- session state

    def fork(self, sampling: Sampling | None = None) -> "Session":
        """A second stream that stands where this one stands; what it watches does not touch this one.

        It has a pool of its own. sampling: how its words are chosen; None = as here.
        """
        sampling = sampling or self.sampling
        twin = copy.copy(self)
        twin._grids, twin.sampling = set(self._grids), sampling
        if self._lane is not None:
            limits = jax.tree.map(lambda x: np.asarray(x)[None], sampling.limits)
            bounds = self.config.sampling if sampling == self.sampling else sampling.bounds
            twin._pool = LanePool(dataclasses.replace(self.config, sampling=bounds), clip_shape=self._clip_shape)
            twin._lane = twin._pool.take()
            twin.state = dataclasses.replace(self.state, sampling=limits)
        return twin

    def close(self) -> None:
        """Gives the lane back, for another stream; the session is over."""
        if self._lane is not None:
            self.pool.give_back(self._lane)
            self._lane = None

    def save(self, folder: str | pathlib.Path) -> None:
        """Saves the stream so that `StreamingVLM.resume` goes on as if it had never stopped; see `saved.save`."""
        state = self.state
        about = {
            "settings": self.settings.to_json(),
            "sampling": dataclasses.asdict(self.sampling),
            "clip_shape": self._clip_shape,
            "chunks": self.chunks,
            "position": self.position,
        }
        saved.save(folder, self.vlm, saved.COMMENTARY, about, state)

    @classmethod
    def load(cls, vlm: LoadedVLM, folder: str | pathlib.Path, **changes: Any) -> "Session":
        """See `StreamingVLM.resume`. Raises CheckpointError when the folder holds no stream, or one of another model."""
        version = saved.find(folder)
        about = saved.read_saved(version / saved.STREAM, *saved.model_of(vlm))
        session = cls(vlm, dataclasses.replace(about.settings, **changes))
        session.sampling, session.chunks, session.position = about.sampling, about.chunks, about.position
        session._build(session.clip_grid(np.empty(about.clip_shape, np.uint8)), about.clip_shape)
        session.state = saved.arrays(version, session.state)
        return session
