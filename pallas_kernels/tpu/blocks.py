"""Which blocks of keys a block of rows has to read, from the orders alone.

    keys     0   1   2   3   4        x: some row may see some key       schedule, one line a block of rows
    rows 0   x   .   x   .   .                                            0  -  2  -  -      -: idle, the block before again
    rows 1   .   x   .   x   .                                            -  1  -  3  -

An idle step names the block before it (the first one, the block after): the pipeline of Pallas copies a block only when its
index changes, and the kernel computes only in steps that are not idle. So blocks that nobody sees cost neither bandwidth
nor time in the matrix unit, only an empty step; where the number of live blocks is known beforehand, not even that.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int

NEVER = 2**30


def round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def pad_tokens(x: jax.Array, size: int, value: int = -1) -> jax.Array:
    """(B, n) -> (B, size)."""
    return jnp.pad(x, ((0, 0), (0, size - x.shape[1])), constant_values=value)


def live_blocks(
    row_order: Int[Array, "B R"],
    key_order: Int[Array, "B C"],
    segments: tuple[Int[Array, "B R"], Int[Array, "B C"]] | None,
    *,
    block_rows: int,
    block_keys: int,
    sink: int | None,
    window: int | None,
) -> Bool[Array, "B rows keys"]:
    """True where a block of rows may see something of a block of keys. Orders below 0 see nothing and are not seen."""
    low_row, high_row = _range(row_order, row_order >= 0, block_rows)
    low_key, high_key = _range(key_order, key_order >= 0, block_keys)
    low_row, high_row = low_row[:, :, None], high_row[:, :, None]
    low_key, high_key = low_key[:, None], high_key[:, None]
    live = (low_key <= high_row) & (high_key >= 0) & (high_row >= 0)
    if window is not None:
        live &= (low_row - high_key < window) | (low_key < (sink or 0))
    if segments is not None:
        low_row, high_row = _range(segments[0], row_order >= 0, block_rows)
        low_key, high_key = _range(segments[1], key_order >= 0, block_keys)
        live &= (low_row[:, :, None] <= high_key[:, None]) & (low_key[:, None] <= high_row[:, :, None])
    return live


def _range(x: jax.Array, real: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    """Smallest and largest real value of every block."""
    low, high = jnp.where(real, x, NEVER), jnp.where(real, x, -NEVER)
    return low.reshape(len(x), -1, size).min(-1), high.reshape(len(x), -1, size).max(-1)


def schedule(live: Bool[Array, "B rows keys"], most: int | None = None) -> Int[Array, " steps"]:
    """The block that each step reads, ~block where it is idle; flat, because scalar memory pads the last axes of anything else.

    most: no line has more live blocks than this; they are moved to the front and lines are cut there.
    """
    step = jnp.arange(live.shape[-1], dtype=jnp.int32)
    if most is not None:
        number = jnp.sort(jnp.where(live, step, NEVER), axis=-1)[..., :most]
        live, step = number < NEVER, number
    last = lax.cummax(jnp.where(live, step, -1), axis=live.ndim - 1)
    first = jnp.min(jnp.where(live, step, NEVER), -1, keepdims=True)
    idle = jnp.where(last >= 0, last, jnp.where(first < NEVER, first, 0))
    return jnp.where(live, step, ~idle).reshape(-1)


def block_of(entry: jax.Array) -> jax.Array:
    """The block that a step of the schedule reads."""
    return jnp.where(entry < 0, ~entry, entry)
