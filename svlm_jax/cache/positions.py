"""From slots to logical order to the 3-D positions in force. Nothing here is stored in keys: they are cached un-rotated.

Text moves a running counter by 1 on all three axes. A vision block that starts at counter b puts its patches at
(b + τ·k, b + row, b + col), k the temporal grid, and moves the counter by its longest axis (StreamingVLM's modified
`get_rope_index`; arXiv 2510.09608 section 2.1). τ is the number of positions between two temporal grids,
`tokens_per_second · seconds_per_grid`; positions are float32 and not truncated, so they may be fractional.

Every token carries what it adds (`pos_step`, `pos_offset`), so positions follow from the logical order by one cumulative sum.
Contiguous positions re-number what is kept; native positions are those of the time of writing and grow for ever.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from svlm_jax.cache.ring import Slots, Tokens, Window


def raster(t: int, h: int, w: int) -> np.ndarray:
    """Temporal grid, row and column of each token of a block, in raster order: int (3, t·h·w)."""
    return np.indices((t, h, w)).reshape(3, -1)


def inside_block(index: Any, time_step: float) -> Any:
    """Positions (τ·k, row, col) inside their block of tokens with that `index` (…, 3, M): their temporal grid, row, column.

    NumPy arrays and JAX arrays alike; τ is `time_step`.
    """
    return index * np.asarray([[time_step], [1.0], [1.0]])


def vision_block(grid: tuple[int, int, int], time_step: float) -> tuple[np.ndarray, np.ndarray]:
    """What the patches of one clip add: pos_offset (3, M) and pos_step (M,), float32, in raster order (t, h, w).

    grid: temporal grids, rows and columns after merging. The whole span is charged to the last patch.
    """
    pos_offset = inside_block(raster(*grid), time_step)
    pos_step = np.zeros(pos_offset.shape[1], np.float32)
    pos_step[-1] = pos_offset.max() + 1
    return pos_offset.astype(np.float32), pos_step


def kept_positions(slots: Slots, window: Window, native_next: Array) -> tuple[Float[Array, "3 C"], Float[Array, ""]]:
    """Positions in force for kept slots (any value for free ones), and the next free position."""
    count = slots.order.shape[0]
    by_order = jnp.where(slots.order >= 0, slots.order, count)  # free slots: out of range, dropped
    moves = jnp.zeros(count, jnp.float32).at[by_order].set(slots.pos_step, mode="drop")
    start = (jnp.cumsum(moves) - moves)[slots.order]
    position = jnp.where(window.native, slots.native, start + slots.pos_offset)
    return position, jnp.where(window.native, native_next, moves.sum())


def new_positions(new: Tokens, begin: Array) -> tuple[Float[Array, "3 T"], Float[Array, ""]]:
    """Positions of new tokens when the counter stands at `begin`, and where it stands after them."""
    moves = jnp.where(new.valid, new.pos_step, 0.0)
    return begin + jnp.cumsum(moves) - moves + new.pos_offset, begin + moves.sum()
