"""A pool of lanes, allocated once, that streams join and leave: pure functions over `StreamState`, jitted and donated.

    pool = init(config, lanes=8)
    pool = insert(pool, 3, stream)             a stream (a pool of one lane) moves in
    pool, out = step(params, pool, turn, frames, active, config=config)                all lanes
    pool, out = step(params, pool, turn, frames, active, rows, config=config)          the lanes that `rows` names
    pool = fork(pool, 3, 5)                    lane 5 stands where lane 3 stands
    stream = extract(pool, 3)                  a value of its own, which can be saved
    pool = release(pool, 3)

The pool is donated and written in place: no function copies keys and values of a lane that it is not about. Lanes are numbers
that the programs read, so nothing recompiles whichever lane it is. `step` and `ingest` are those of `engine.commentate`.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from svlm_jax.cache import ring
from svlm_jax.cache.ring import Window
from svlm_jax.cache.window import WindowConfig
from svlm_jax.engine.commentate import StepConfig, ingest_step, step
from svlm_jax.engine.commentate import replace_system_step as replace_system
from svlm_jax.engine.sampling import Sampling, SamplingLimits, key_of
from svlm_jax.engine.state import StreamState
from svlm_jax.errors import ConfigError

__all__ = ["configure", "extract", "fork", "ingest_step", "init", "insert", "open_lane", "release", "replace_system", "step"]


def init(
    config: StepConfig,
    lanes: int = 1,
    *,
    window: Window | None = None,
    sampling: SamplingLimits | None = None,
    seed: int = 0,
    clip_shape: tuple[int, ...] = (),
) -> StreamState:
    """A pool of empty lanes. Lane i draws its randomness from seed + i.

    window, sampling: of all lanes, to begin with.
    clip_shape: (F, 3, height, width) of a chunk's frames; needed by recompute only, which keeps them.
    Raises ConfigError when it is missing, or for less than one lane.
    """
    if lanes < 1:
        raise ConfigError(f"lanes={lanes}: expected 1 or more")
    if config.recompute and not clip_shape:
        raise ConfigError("memory=recompute keeps frames: expected clip_shape (F, 3, height, width)")
    window = window or WindowConfig().limits(1.0, None)
    sampling = sampling or Sampling(max_new_tokens=1).limits
    kv, shape = config.model.text.kv_shape, config.ring

    def each(value: Array) -> Array:
        return jnp.tile(value[None], (lanes,) + (1,) * value.ndim)

    return StreamState(
        keys=kv.stored(lanes, shape.slots, config.cache_dtype),
        values=kv.stored(lanes, shape.slots, config.cache_dtype),
        slots=jax.tree.map(each, ring.empty_slots(shape.slots)),
        window=jax.tree.map(lambda x: jnp.full(lanes, x), window),
        sampling=jax.tree.map(lambda x: jnp.full(lanes, x), sampling),
        chunk_index=jnp.zeros(lanes, jnp.int32),
        last=jnp.full(lanes, -1, jnp.int32),
        native_next=jnp.zeros(lanes, jnp.float32),
        key=jnp.stack([key_of(seed + i) for i in range(lanes)]),
        frames=jnp.zeros((lanes, shape.blocks, *clip_shape), jnp.uint8) if config.recompute else None,
    )


def _put(pool: StreamState, lane: Int[Array, ""], stream: StreamState) -> StreamState:
    return jax.tree.map(lambda x, y: jax.lax.dynamic_update_slice_in_dim(x, y, lane, 0), pool, stream)


def _take(pool: StreamState, lane: Int[Array, ""]) -> StreamState:
    return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, lane, 1), pool)


def _numbers(pool: StreamState, lane: Int[Array, ""], **values: object) -> StreamState:
    """The pool with some metadata of a lane replaced."""
    changed = {
        name: jax.tree.map(lambda old, new: old.at[lane].set(new), getattr(pool, name), value) for name, value in values.items()
    }
    return dataclasses.replace(pool, **changed)


@functools.partial(jax.jit, donate_argnames="pool")
def insert(pool: StreamState, lane: Int[Array, ""] | int, stream: StreamState) -> StreamState:
    """The pool with a stream, a state of one lane and of the same shapes, in `lane`."""
    return _put(pool, jnp.asarray(lane), stream)


@jax.jit
def extract(pool: StreamState, lane: Int[Array, ""] | int) -> StreamState:
    """A copy of one lane, on buffers of its own: what is saved, moved, or inserted elsewhere."""
    return _take(pool, jnp.asarray(lane))


@functools.partial(jax.jit, donate_argnames="pool")
def fork(pool: StreamState, source: Int[Array, ""] | int, target: Int[Array, ""] | int) -> StreamState:
    """The pool with lane `target` standing where lane `source` stands, randomness included."""
    return _put(pool, jnp.asarray(target), _take(pool, jnp.asarray(source)))


@functools.partial(jax.jit, donate_argnames="pool")
def open_lane(
    pool: StreamState,
    lane: Int[Array, ""] | int,
    window: Window,
    sampling: SamplingLimits,
    key: Array,
) -> StreamState:
    """The pool with a fresh stream in `lane`, which holds nothing yet. Its old keys and values are written over in time."""
    return _numbers(
        pool,
        jnp.asarray(lane),
        slots=ring.empty_slots(pool.slots.order.shape[1]),
        window=window,
        sampling=sampling,
        chunk_index=0,
        last=-1,
        native_next=0.0,
        key=key,
    )


@functools.partial(jax.jit, donate_argnames="pool")
def release(pool: StreamState, lane: Int[Array, ""] | int) -> StreamState:
    """The pool with an empty lane. Only metadata change: what nobody can see needs no wiping."""
    return _numbers(
        pool, jnp.asarray(lane), slots=ring.empty_slots(pool.slots.order.shape[1]), chunk_index=0, last=-1, native_next=0.0
    )


@functools.partial(jax.jit, donate_argnames="pool")
def configure(pool: StreamState, lane: Int[Array, ""] | int, window: Window, sampling: SamplingLimits) -> StreamState:
    """The pool with another window and other sampling for the stream in `lane`, from its next second on.

    A window must fit the ring that the pool was made for (`cache.window.ring_shape`), sampling its bounds
    (`SamplingBounds.limits`).
    """
    return _numbers(pool, jnp.asarray(lane), window=window, sampling=sampling)
