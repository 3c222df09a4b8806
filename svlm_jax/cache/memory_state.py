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
from svlm_jax.cache.memory_shape import BlockMeta, MemoryShape, TokenMeta
from svlm_jax.cache.policies.base import MemoryPolicy, Positions
from svlm_jax.cache.positions import inside_block, raster

NEVER = -1  # the place of a slot that holds nothing


def memory_shape(
    policy: MemoryPolicy,
    *,
    prefix: int,
    grid: tuple[int, int, int],
    seconds: float,
    step: float,
    marks: tuple[int, int] = (0, 0),
) -> MemoryShape:
    """The slots that a memory needs for clips of grid (t, h, w), t temporal grids of `seconds` each.

    marks: tokens before and behind the cells of a grid, `MemoryShape.before` and `after`; they count in every budget.
    Raises ConfigError when the budget cannot hold a clip, or nothing but the short-term memory.
    """
    grids, rows, columns = grid
    budget, short = policy.tokens(grids=grids, cells=rows * columns + sum(marks), seconds=seconds)
    return MemoryShape(prefix, grids, rows, columns, seconds, step, budget, short, *marks)


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
      end: positions that all blocks of the stream so far take, where grids have time stamps.
    """

    keys: tuple[Array, ...]
    values: tuple[Array, ...]
    means: tuple[Array, ...]
    meta: TokenMeta
    count: Int[Array, "B"]
    seen: Int[Array, "B"]
    grids: Int[Array, "B"]
    newest: Float[Array, "B D"]
    end: Int[Array, "B"] | None = None


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
            block=_empty_blocks(held) if shape.stamped else None,
        ),
        count=jnp.zeros(batch, jnp.int32),
        seen=jnp.zeros(batch, jnp.int32),
        grids=jnp.zeros(batch, jnp.int32),
        newest=jnp.zeros((batch, width if policy.similar is not None else 0), jnp.float32),
        end=jnp.zeros(batch, jnp.int32) if shape.stamped else None,
    )


def _empty_blocks(held: tuple[int, ...]) -> BlockMeta:
    begin, span, depth = (jnp.zeros(held, jnp.int32) for _ in range(3))  # buffers of their own, as donation requires
    return BlockMeta(begin, span, depth, jnp.zeros(held, bool))


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


def incoming_stamped(
    memory: MemoryState, shape: MemoryShape, second: Float[Array, "B grids"], token: Int[Array, "B clip"], pad: int
) -> TokenMeta:
    """`incoming` for clips whose grids have time stamps: `token` are all ids, those of cells `pad`, -1 where nothing stands."""
    assert memory.end is not None, "grids have time stamps"
    batch, side = len(token), max(shape.rows, shape.columns)
    token = token.reshape(batch, shape.grids, shape.cells)
    cell, text = token == pad, (token >= 0) & (token != pad)
    behind = jnp.cumsum(cell, axis=2) == cell.sum(2, keepdims=True)
    before = jnp.cumsum(text, axis=2) - text
    span = jnp.where((token >= 0).any(2), text.sum(2) + side, 0)
    begin = memory.end[:, None] + jnp.cumsum(span, axis=1) - span
    index = np.pad(raster(1, shape.rows, shape.columns)[1:], ((0, 0), (shape.before, shape.after)))

    def every(x: Array | np.ndarray) -> Array:
        """A value of each grid, or of each of its tokens, for all tokens."""
        return jnp.broadcast_to(x, token.shape).reshape(batch, -1)

    return TokenMeta(
        place=memory.seen[:, None] + jnp.cumsum((cell | text).reshape(batch, -1), axis=1) - 1,
        grid=every((memory.grids[:, None] + jnp.arange(shape.grids))[:, :, None]),
        row=every(index[0]),
        column=every(index[1]),
        second=every(second[:, :, None]),
        block=BlockMeta(
            begin=every(begin[:, :, None]),
            span=every(span[:, :, None]),
            depth=every(before + jnp.where(text & behind, side, 0)),
            text=every(text),
        ),
    )


def marks_like_cells(
    score: Float[Array, "B vision"], meta: TokenMeta, live: Bool[Array, "B vision"]
) -> Float[Array, "B vision"]:
    """Scores in which time stamps and marks have that of the best cell of their grid: they stay as long as any of it."""
    assert meta.block is not None, "grids have time stamps"
    _, ordinal = _first_of_grid(meta.grid, live)
    cells = jnp.where(live & ~meta.block.text, score, -jnp.inf)
    best = jax.vmap(lambda values, index: jax.ops.segment_max(values, index, num_segments=values.shape[0]))(cells, ordinal)
    return jnp.where(meta.block.text, jnp.maximum(jnp.take_along_axis(best, ordinal, axis=1), 0), score)


def _first_of_grid(
    grid: Int[Array, "B vision"], live: Bool[Array, "B vision"]
) -> tuple[Bool[Array, "B vision"], Int[Array, "B vision"]]:
    """Which tokens are the first of their grid that live, and the number of each token's grid among those with any."""
    newest = jax.lax.cummax(jnp.where(live, grid, -1), axis=1)
    before = jnp.concatenate([jnp.full_like(newest[:, :1], -1), newest[:, :-1]], axis=1)
    first = newest > before
    return first, jnp.maximum(jnp.cumsum(first, axis=1) - 1, 0)


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
    Where grids have time stamps each is a block: contiguous ones stand one behind the other, each as long as when it was whole.
    """
    if meta.block is not None:
        return _block_positions(meta, meta.block, live, shape, mode)
    if not shape.step:
        along = jnp.cumsum(live, axis=1) - 1 if mode == "contiguous" else meta.place
        inside = jnp.stack([along.astype(jnp.float32)] * 3, axis=1)
    else:
        grid = meta.grid
        if mode == "contiguous":
            grid = _first_of_grid(grid, live)[1]
        inside = jnp.floor(inside_block(jnp.stack([grid, meta.row, meta.column], axis=1), shape.step))
    extent = jnp.max(jnp.where(live[:, None], inside, -1.0), axis=(1, 2)) + 1
    return shape.prefix + inside, shape.prefix + extent


def _block_positions(
    meta: TokenMeta, block: BlockMeta, live: Bool[Array, "B vision"], shape: MemoryShape, mode: Positions
) -> tuple[Float[Array, "B 3 vision"], Float[Array, "B"]]:
    begin = block.begin
    if mode == "contiguous":
        begin = jnp.cumsum(jnp.where(_first_of_grid(meta.grid, live)[0], block.span, 0), axis=1) - block.span
    start = begin + block.depth
    inside = jnp.stack([start, start + meta.row, start + meta.column], axis=1)
    end = jnp.max(jnp.where(live, begin + block.span, 0), axis=1)
    return (shape.prefix + inside).astype(jnp.float32), (shape.prefix + end).astype(jnp.float32)


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
