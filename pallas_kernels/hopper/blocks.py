"""Masks by block: which blocks of columns a block of rows must visit, and which of them need no mask.

              columns (keys), blocks of `keys`
             0    1    2    3    4    5
    rows 0 [full|full| -- |part| -- | -- ]   visit 0, 1 | 3     full 2, length 3
    rows 1 [full|full| -- |full|part| -- ]   visit 0, 1, 3 | 4  full 3, length 4

A block is visited only when some row may see some column of it, and those that all rows see completely come first, so the
kernel runs a loop without a mask and then one with it. Dead parts of a ring are neither fetched nor multiplied.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

EMPTY = 2**30  # the order of a column that no row sees
PADDING = -1  # the order of a row that sees nothing
NARROW = 64  # columns of a block that few rows visit: decoded tokens
FEW = 512  # blocks that are put into a list without a sort


@dataclasses.dataclass(frozen=True)
class Mask:
    """The rule, static: by order (`causal`, with or without sink and window), by segment, or both."""

    causal: bool = True
    sink: int | None = None
    window: int | None = None
    segments: bool = False

    def visible(self, row: jax.Array, column: jax.Array, row_segment: jax.Array, column_segment: jax.Array) -> jax.Array:
        """Which columns a row sees. Empty columns carry the order EMPTY; rows of padding see nothing."""
        seen = (column <= row) if self.causal else (column < EMPTY) & (row >= 0)
        if self.window is not None:
            inside = row - column < self.window
            seen &= inside if self.sink is None else inside | (column < self.sink)
        return seen & (row_segment == column_segment) if self.segments else seen


class Columns(NamedTuple):
    """Columns cut into blocks; the last block begins earlier when they do not divide, and repeats nothing."""

    start: jax.Array  # (blocks,) where each block begins, a multiple of 8
    order: jax.Array  # (B, blocks, size)
    segment: jax.Array  # (B, blocks, size)


class Lists(NamedTuple):
    """For each block of rows the blocks of columns to visit, those that need no mask first."""

    ids: jax.Array  # (B, row blocks, column blocks)
    full: jax.Array  # (B, row blocks) how many need no mask
    length: jax.Array  # (B, row blocks) how many to visit


class LiveBlocks(NamedTuple):
    """A cache cut into blocks, and which of them hold a live slot: for decoded tokens, which see all that is older."""

    columns: Columns
    visits: Lists


def live(order: jax.Array) -> LiveBlocks:
    """Cuts the orders of a cache (B, C), C a multiple of 8, into narrow blocks, and lists those with a live slot.

    The slots that a loop will write have their orders beforehand, so the list is the same for each of its tokens.
    """
    missing = max(NARROW - order.shape[1], 0)
    order = jnp.pad(order, ((0, 0), (0, missing)), constant_values=-1)
    cols = columns(order, order, NARROW)
    some = (cols.order < EMPTY).any(-1)[:, None]
    return LiveBlocks(cols, _sorted(some, jnp.zeros_like(some)))


def columns(order: jax.Array, segment: jax.Array, size: int) -> Columns:
    """Cuts orders and segments (B, C) into blocks of `size`; C >= size, C a multiple of 8."""
    total = order.shape[1]
    count = -(-total // size)
    start = jnp.minimum(jnp.arange(count) * size, total - size)
    index = start[:, None] + jnp.arange(size)
    repeated = index < (jnp.arange(count) * size)[:, None]
    order = jnp.where(order < 0, EMPTY, order)
    return Columns(start.astype(jnp.int32), jnp.where(repeated, EMPTY, order[:, index]), segment[:, index])


def lists(mask: Mask, row_order: jax.Array, row_segment: jax.Array, cols: Columns, rows: int) -> Lists:
    """The blocks that each block of `rows` rows visits; row_order and row_segment (B, R), R a multiple of `rows`."""
    partly, wholly = _pairs(mask, row_order, row_segment, cols, rows)
    return _sorted(partly, wholly)


def transposed(mask: Mask, row_order: jax.Array, row_segment: jax.Array, cols: Columns, rows: int) -> Lists:
    """For each block of columns the blocks of rows that see it: (B, column blocks, row blocks)."""
    partly, wholly = _pairs(mask, row_order, row_segment, cols, rows)
    return _sorted(partly.swapaxes(1, 2), wholly.swapaxes(1, 2))


def _sorted(partly: jax.Array, wholly: jax.Array) -> Lists:
    full, length = wholly.sum(-1).astype(jnp.int32), partly.sum(-1).astype(jnp.int32)
    total = partly.shape[-1]
    if total > FEW:
        ids = jnp.argsort(jnp.where(wholly, 0, jnp.where(partly, 1, 2)), axis=-1, stable=True)
    else:  # the place of each block in the list, then which block has place j: one fusion, where a sort is several programs
        after = full[..., None] + jnp.cumsum(partly & ~wholly, axis=-1) - 1
        place = jnp.where(wholly, jnp.cumsum(wholly, axis=-1) - 1, jnp.where(partly, after, -1))
        here = place[..., None, :] == jnp.arange(total)[:, None]
        ids = jnp.where(here, jnp.arange(total), 0).sum(-1)
    return Lists(ids.astype(jnp.int32), full, length)


def _pairs(mask: Mask, row_order: jax.Array, row_segment: jax.Array, cols: Columns, rows: int) -> tuple[jax.Array, jax.Array]:
    """Of each pair of blocks: may some row see some column, and does every row see every column? (B, rows, columns)."""
    batch = row_order.shape[0]
    order, segment = row_order.reshape(batch, -1, rows), row_segment.reshape(batch, -1, rows)
    real, used = order >= 0, cols.order < EMPTY
    first = jnp.where(real, order, EMPTY).min(-1)[:, :, None]
    last = order.max(-1)[:, :, None]
    low = cols.order.min(-1)[:, None]
    high = jnp.where(used, cols.order, PADDING).max(-1)[:, None]
    partly = (last >= 0) & (high >= 0)
    wholly = real.all(-1)[:, :, None] & used.all(-1)[:, None]
    if mask.causal:
        partly &= low <= last
        wholly &= high <= first
    if mask.window is not None:
        near, inside = first - high < mask.window, last - low < mask.window
        partly &= near if mask.sink is None else near | (low < mask.sink)
        wholly &= inside if mask.sink is None else inside | (high < mask.sink)
    if mask.segments:
        lowest = jnp.where(real, segment, EMPTY).min(-1)[:, :, None], jnp.where(used, cols.segment, EMPTY).min(-1)[:, None]
        highest = jnp.where(real, segment, PADDING).max(-1)[:, :, None], jnp.where(used, cols.segment, PADDING).max(-1)[:, None]
        partly &= (lowest[0] <= highest[1]) & (lowest[1] <= highest[0])
        wholly &= (lowest[0] == highest[0]) & (lowest[1] == highest[1]) & (lowest[0] == lowest[1])
    return partly, partly & wholly
