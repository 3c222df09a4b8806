"""Lanes on a device: one state, allocated once, in which each session holds a lane."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from svlm_jax.cache.ring import Tokens, Window
from svlm_jax.engine import commentate, lanes, slices
from svlm_jax.engine.commentate import Prefilled, StepConfig, StepOutput
from svlm_jax.engine.sampling import SamplingLimits, key_of
from svlm_jax.engine.slices import SliceOutput, Speech
from svlm_jax.engine.state import StreamState
from svlm_jax.errors import ConfigError, StreamError
from svlm_jax.models.functional import Params
from svlm_jax.prompt.commentary import pad

SYSTEM_STEP = 256  # tokens: system turns are padded to a multiple of it, so that few programs serve all


class LanePool:
    """The state of all lanes, and which of them are free. A second runs those that have a chunk, in one program.

    There is a program for each power of two of rows up to the size of the pool; rows of filling are idle.
    """

    def __init__(self, config: StepConfig, size: int = 1, *, clip_shape: tuple[int, ...] = ()) -> None:
        self.config, self.size = config, size
        self.state = lanes.init(config, size, clip_shape=clip_shape)
        self._free = list(range(size))

    def admit(self, needed: StepConfig) -> None:
        """Checks that the lanes have room for what a stream needs. Raises ConfigError when they are too small or differ."""
        have, ring, other = self.config, self.config.ring, needed.ring
        if min(ring.blocks - other.blocks, ring.block - other.block, ring.text - other.text) < 0:
            raise ConfigError(
                f"the stream needs {other.blocks} clips of {other.block} tokens and {other.text} slots for text: "
                f"expected at most {ring.blocks} of {ring.block} and {ring.text}, for which the lanes were made"
            )
        fixed = dataclasses.replace(needed, ring=ring, sampling=have.sampling)
        for field in dataclasses.fields(StepConfig):
            wanted, made_for = getattr(fixed, field.name), getattr(have, field.name)
            if wanted != made_for:
                raise ConfigError(f"{field.name}={wanted}: expected {made_for}, for which the lanes were made")

    def take(self) -> int:
        """A free lane, which is the caller's until it gives it back. Raises StreamError when there is none."""
        if not self._free:
            raise StreamError(f"all {self.size} lanes hold a stream: expected one to be released first")
        return self._free.pop(0)

    def give_back(self, lane: int) -> None:
        """Empties a lane."""
        self.state = lanes.release(self.state, lane)
        self._free.append(lane)

    def open(
        self, params: Params, lane: int, window: Window, sampling: SamplingLimits, seed: int, pieces: Sequence[Tokens]
    ) -> None:
        """Starts a stream in a lane, with an opening in pieces. Raises StreamError when the ring cannot hold it."""
        self.state = lanes.open_lane(self.state, lane, window, sampling, key_of(seed))
        rows = None if self.size == 1 else np.asarray([lane], np.int32)
        for piece in pieces:
            piece = jax.tree.map(lambda x: x[None], piece)
            self.state, left = lanes.ingest_step(params, self.state, piece, rows, config=self.config)
            if int(left[0]) < 0:
                raise StreamError(f"the cache of {self.config.ring.slots} slots cannot hold the previous text")

    def configure(self, lane: int, window: Window, sampling: SamplingLimits) -> None:
        """Another window and other sampling for the stream of a lane."""
        self.state = lanes.configure(self.state, lane, window, sampling)

    def replace_system(self, params: Params, lane: int, system: Tokens) -> None:
        """Puts another system turn (T,) in front of the stream of a lane. Raises StreamError when there is no room for it."""
        turn = jax.tree.map(lambda x: x[None], pad(system, -(-system.token.shape[-1] // SYSTEM_STEP) * SYSTEM_STEP))
        self.state, left = lanes.replace_system(params, self.state, turn, np.asarray([lane], np.int32), config=self.config)
        if int(left[0]) < 0:
            raise StreamError(f"the cache of {self.config.ring.slots} slots cannot hold the system prompt")

    def fork(self, lane: int) -> int:
        """A lane that stands where `lane` stands. Raises StreamError when there is none free."""
        target = self.take()
        self.state = lanes.fork(self.state, lane, target)
        return target

    def extract(self, lane: int) -> StreamState:
        """The stream of a lane, as a value of its own."""
        return lanes.extract(self.state, lane)

    def insert(self, lane: int, stream: StreamState) -> None:
        """Puts a stream into a lane."""
        self.state = lanes.insert(self.state, lane, stream)

    def step(
        self, params: Params, turns: Mapping[int, tuple[Tokens, np.ndarray]], *, split: bool = False, whole: bool = False
    ) -> tuple[dict[int, StepOutput], tuple[float, ...]]:
        """One second of the lanes that have a turn and frames (F, 3, height, width).

        Returns the outputs by lane, as numpy arrays with one row, and how long it took in ms: the whole, and when `split` is
        asked for, which runs three programs, its vision tower, prefill and decoding.

        whole: run all lanes, idle ones too, so that there is one program however many lanes have a turn.
        """
        rows, inputs = self._rows(turns, whole=whole)
        run = self._split if split else self._whole
        out, times = run(params, *inputs)
        return {lane: jax.tree.map(lambda x, i=i: x[i : i + 1], out) for i, lane in enumerate(rows) if lane in turns}, times

    def _rows(
        self, turns: Mapping[int, tuple[Tokens, np.ndarray]], *, whole: bool = False
    ) -> tuple[list[int], tuple[Any, ...]]:
        """The lanes of a program's rows, those of filling included; and its turn, frames, active rows and names of lanes."""
        size = self.size if whole else min(self.size, 1 << (len(turns) - 1).bit_length())
        whole = size == self.size
        rows = list(range(self.size)) if whole else [*turns, *[self.size] * (size - len(turns))]
        filling = next(iter(turns.values()))
        turn, frames = jax.tree.map(lambda *xs: np.stack(xs), *(turns.get(lane, filling) for lane in rows))
        active = np.asarray([lane in turns for lane in rows])
        return rows, (turn, frames, active, None if whole else np.asarray(rows, np.int32))

    def begin(self, params: Params, turns: Mapping[int, tuple[Tokens, np.ndarray]]) -> "RunningReplies":
        """`step` up to the first token of each reply. Arguments as those of `step`."""
        rows, (turn, frames, active, named) = self._rows(turns)
        looked = slices.look(params, self.state, turn, frames, active, named, config=self.config)
        self.state, speech, out = slices.begin(params, self.state, *looked, named, config=self.config)
        return RunningReplies(self, rows, active, named, speech, out)

    def _whole(self, params: Params, *inputs: Any) -> tuple[StepOutput, tuple[float, ...]]:
        begin = time.perf_counter()
        self.state, out = lanes.step(params, self.state, *inputs, config=self.config)
        out = jax.device_get(out)  # waits for the device
        return out, (1e3 * (time.perf_counter() - begin),)

    def _split(
        self, params: Params, turn: Tokens, frames: np.ndarray, active: np.ndarray, rows: np.ndarray | None
    ) -> tuple[StepOutput, tuple[float, ...]]:
        begin = time.perf_counter()
        clip = jax.block_until_ready(_encode(params, self.state, frames, active, rows, config=self.config))
        encoded = time.perf_counter()
        metadata, prefilled = jax.block_until_ready(_prefill(params, self.state, turn, clip, active, rows, config=self.config))
        read = time.perf_counter()
        kept = prefilled.store.keys, prefilled.store.values
        rest = dataclasses.replace(prefilled, store=dataclasses.replace(prefilled.store, keys=(), values=()))
        self.state, out = _reply(params, kept, metadata, rest, rows, config=self.config)
        out = jax.device_get(out)
        end = time.perf_counter()
        return out, tuple(1e3 * (b - a) for a, b in ((begin, end), (begin, encoded), (encoded, read), (read, end)))


class RunningReplies:
    """A second of some lanes that is decoded in slices. Other lanes of the pool may run between two of them."""

    def __init__(
        self, pool: LanePool, rows: list[int], active: np.ndarray, named: Any, speech: Speech, out: SliceOutput
    ) -> None:
        self._pool, self._rows, self._active, self._named = pool, rows, active, named
        self._take(speech, out)

    def _take(self, speech: Speech, out: SliceOutput) -> None:
        self._out: SliceOutput = jax.device_get(out)  # waits for the device
        self._speech = speech if self.speaking else None  # its workspace is large

    def extend(self, params: Params, tokens: int) -> None:
        """Decodes up to so many more tokens of each reply."""
        pool = self._pool
        if self._speech is not None:
            pool.state, speech, out = slices.extend(
                params, pool.state, self._speech, self._active, np.int32(tokens), self._named, config=pool.config
            )
            self._take(speech, out)

    def leave(self, lane: int) -> None:
        """Leaves a lane alone from now on: its reply ends with what it has said."""
        self._active = self._active & (np.asarray(self._rows) != lane)

    @property
    def speaking(self) -> list[int]:
        """Lanes that have more to say."""
        return [self._rows[i] for i in np.flatnonzero(self._out.speaking & self._active)]

    def so_far(self, lane: int) -> StepOutput:
        """The output of a lane, one row, as if the second ended here."""
        row = self._rows.index(lane)
        output: StepOutput = jax.tree.map(lambda x: x[row : row + 1], self._out.so_far)
        return output


def _prefill_whole(
    params: Params, pool: StreamState, turn: Tokens, clip: Any, active: Any, rows: Any, *, config: StepConfig
) -> tuple[StreamState, Prefilled]:
    """`prefill`, and the pool's metadata, which the reply needs when the pool has been donated."""
    return pool.metadata(), commentate.prefill(params, pool, turn, clip, active, rows, config=config)


def _reply_whole(
    params: Params, kept: tuple[Any, Any], metadata: StreamState, rest: Prefilled, rows: Any, *, config: StepConfig
) -> tuple[StreamState, StepOutput]:
    """`reply` with keys and values as an argument of their own: only what is returned can be donated."""
    store = dataclasses.replace(rest.store, keys=kept[0], values=kept[1])
    return commentate.reply(params, metadata, dataclasses.replace(rest, store=store), rows, config=config)


# The second as three programs.
_encode = jax.jit(commentate.encode_clip, static_argnames="config")
_prefill = jax.jit(_prefill_whole, static_argnames="config", donate_argnames="pool")
_reply = jax.jit(_reply_whole, static_argnames="config", donate_argnames="kept")
