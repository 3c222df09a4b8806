"""A memory of what was seen, in a fixed number of slots: the explicit state behind questions about hours of video.

    prefix            system turn and what else comes before the video: always kept, outside the budget
    long-term         what a policy kept of all clips so far          } budget, in order of the stream
    short-term        the last frames, whole                          }
    clip              room for the clip that is being read

    | prefix   | kept tokens, oldest first ... newest | clip |        S = prefix + budget + clip (+ up to 7 spare slots)

Keys are un-rotated. Each layer keeps tokens of its own choice but equally many, so which slots are live is common to all
layers, and what a slot holds (`TokenMeta`) is not. Survivors move to the front, in order of the stream: slot order is stream
order. What is kept when a clip comes, and what a question reads, is the policy (`cache.policies`).
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from svlm_jax.cache import vsb
from svlm_jax.cache.kv import KVShape
from svlm_jax.cache.memory_shape import MemoryShape, TokenMeta
from svlm_jax.cache.policies.base import MemoryPolicy, Positions
from svlm_jax.cache.positions import inside_block, raster

NEVER = -1  # the place of a slot that holds nothing


def memory_shape(policy: MemoryPolicy, *, prefix: int, grid: tuple[int, int, int], seconds: float, step: float) -> MemoryShape:
    """The slots that a memory needs for clips of grid (t, h, w), t temporal grids of `seconds` each.

    Raises ConfigError when the budget cannot hold a clip, or nothing but the short-term memory.
    """
    grids, rows, columns = grid
    budget, short = policy.tokens(grids=grids, cells=rows * columns, seconds=seconds)
    return MemoryShape(prefix, grids, rows, columns, seconds, step, budget, short)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MemoryState:
    """The memory of B streams: a value that can be saved, forked and moved.

    Attributes:
      keys, values: per layer (B, K, S, H); keys are un-rotated.
      means: per layer (B, K, pages, H) float32, mean keys of the long-term pages; () when nothing reads them.
      meta: of the vision slots, with a leading axis of layers (L, B, vision).
      count: live vision slots. seen: vision tokens of the stream so far. grids: temporal grids of the stream so far.
      newest: mean embedding of the last frames kept, for the frame filter; (B, 0) without it.
    """

    keys: tuple[Array, ...]
    values: tuple[Array, ...]
    means: tuple[Array, ...]
    meta: TokenMeta
    count: Int[Array, "B"]
    seen: Int[Array, "B"]
    grids: Int[Array, "B"]
    newest: Float[Array, "B D"]


def empty_memory(
    policy: MemoryPolicy, shape: MemoryShape, kv: KVShape, *, width: int, batch: int = 1, dtype: DTypeLike
) -> MemoryState:
    """A memory of nothing, without its prefix. width: D, of the embeddings by which similar frames are left out."""
    held = (kv.num_layers, batch, shape.vision)
    return MemoryState(
        keys=kv.empty(batch, shape.slots, dtype),
        values=kv.empty(batch, shape.slots, dtype),
        means=kv.empty(batch, shape.pages(policy.page), jnp.float32) if policy.page else (),
        meta=TokenMeta(
            place=jnp.full(held, NEVER, jnp.int32),
            grid=jnp.zeros(held, jnp.int32),
            row=jnp.zeros(held, jnp.int32),
            column=jnp.zeros(held, jnp.int32),
            second=jnp.zeros(held, jnp.float32),
        ),
        count=jnp.zeros(batch, jnp.int32),
        seen=jnp.zeros(batch, jnp.int32),
        grids=jnp.zeros(batch, jnp.int32),
        newest=jnp.zeros((batch, width if policy.similar is not None else 0), jnp.float32),
    )


def memory_bytes(memory: MemoryState) -> int:
    """Bytes of the state: what a stream holds between clips, however long it runs."""
    return sum(math.prod(x.shape) * np.dtype(x.dtype).itemsize for x in jax.tree.leaves(memory))


# ----------------------------------------------------------------------------------------------- one layer of B streams


def incoming(memory: MemoryState, shape: MemoryShape, second: Float[Array, "B grids"]) -> TokenMeta:
    """What the tokens of the next clip are, (B, clip) in raster order. second: stream time of each temporal grid."""
    t, row, column = raster(shape.grids, shape.rows, shape.columns)

    def one(seen: Array, grids: Array, second: Array) -> TokenMeta:
        at = jnp.asarray(t)
        return TokenMeta(
            place=seen + jnp.arange(shape.clip),
            grid=grids + at.astype(jnp.int32),
            row=jnp.asarray(row, jnp.int32),
            column=jnp.asarray(column, jnp.int32),
            second=second[at],
        )

    return jax.vmap(one)(memory.seen, memory.grids, second)


def write_meta(meta: TokenMeta, new: TokenMeta, slots: Int[Array, "B T"]) -> TokenMeta:
    """New tokens into the vision slots of a layer; a slot beyond the last means that the token is not kept."""

    def put(old: Array, value: Array) -> Array:
        return old.at[jnp.arange(len(old))[:, None], slots].set(value, mode="drop")

    return jax.tree.map(put, meta, new)


def take_meta(meta: TokenMeta, slots: Int[Array, "B chosen"]) -> TokenMeta:
    return jax.tree.map(lambda x: jnp.take_along_axis(x, slots, axis=1, mode="clip"), meta)


def positions(
    meta: TokenMeta, live: Bool[Array, "B vision"], shape: MemoryShape, mode: Positions
) -> tuple[Float[Array, "B 3 vision"], Float[Array, "B"]]:
    """(t, h, w) positions of tokens in order of the stream (any value where not live), and the first position after them.

    All of the video is one block after the prefix: cells of its k-th grid stand at (⌊k · step⌋, row, column),
    as the models were trained. Contiguous positions count the grids that have any token left; with 1-D positions, the tokens.
    """
    if not shape.step:
        along = jnp.cumsum(live, axis=1) - 1 if mode == "contiguous" else meta.place
        inside = jnp.stack([along.astype(jnp.float32)] * 3, axis=1)
    else:
        grid = meta.grid
        if mode == "contiguous":
            newest = jax.lax.cummax(jnp.where(live, grid, -1), axis=1)
            before = jnp.concatenate([jnp.full_like(newest[:, :1], -1), newest[:, :-1]], axis=1)
            grid = jnp.cumsum(newest > before, axis=1) - 1
        inside = jnp.floor(inside_block(jnp.stack([grid, meta.row, meta.column], axis=1), shape.step))
    extent = jnp.max(jnp.where(live[:, None], inside, -1.0), axis=(1, 2)) + 1
    return shape.prefix + inside, shape.prefix + extent


def with_prefix(position: Float[Array, "B 3 chosen"], prefix: int) -> Float[Array, "B 3 read"]:
    """Positions of the prefix's tokens, which are text, before those of the video."""
    text = jnp.broadcast_to(jnp.arange(prefix, dtype=jnp.float32), (*position.shape[:2], prefix))
    return jnp.concatenate([text, position], axis=2)


def keep(
    policy: MemoryPolicy,
    shape: MemoryShape,
    meta: TokenMeta,
    score: Float[Array, "B vision"] | None,
    count: Int[Array, "B"],
    seen: Int[Array, "B"],
) -> tuple[Int[Array, "B budget"], Int[Array, "B"]]:
    """Which of the first `count` slots a layer keeps, in order, and how many: the policy's answer to a new clip.

    score: of each slot, where the policy goes by scores. seen: tokens of the stream, the new clip included.
    """
    one = functools.partial(policy.keep, shape)
    kept = jax.vmap(one, in_axes=(0, 0 if policy.scored else None, 0, 0))(meta, score, count, seen)
    return jax.vmap(functools.partial(vsb.compact, budget=shape.budget))(kept), kept.sum(1).astype(jnp.int32)
