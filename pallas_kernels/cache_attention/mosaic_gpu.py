"""`cache_attention` for Hopper GPUs: the forward kernel over the live blocks of the ring.

Few rows (T·G <= 64: decoding) take one warpgroup a program and split the cache over all multiprocessors; more rows share
every tile between two warpgroups. Blocks without a live slot are neither fetched nor multiplied; see `hopper/`.
"""

from typing import Any

import jax

from pallas_kernels.hopper import blocks, forward, layout, limits
from pallas_kernels.hopper.device import Machine


def unsupported(
    query: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    query_index: jax.Array,
    kv_index: jax.Array,
    rope: tuple[jax.Array, jax.Array] | None,
    value_lanes: jax.Array | None = None,
    **options: Any,
) -> str | None:
    """Why the kernel cannot run on these arrays; None if it can."""
    return limits.unsupported(query, keys, values, half=rope is not None)


def cache_attention(
    query: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    query_index: jax.Array,
    kv_index: jax.Array,
    rope: tuple[jax.Array, jax.Array] | None = None,
    value_lanes: jax.Array | None = None,
    *,
    scale: float,
    sink: int | None = None,
    window: int | None = None,
    return_lse: bool = False,
    interpret: Any = None,
) -> Any:
    """See `api.cache_attention`. A number of slots that is no multiple of 8 costs a padded copy of keys and values."""
    tokens, heads = query.shape[1], keys.shape[1]
    real = tokens * query.shape[2] // heads
    tiles = forward.choose(real, keys.shape[2], query.shape[0] * heads, rotates=rope is not None)
    slots = max(layout.up(keys.shape[2], 8), tiles.keys)
    keys, values = layout.pad(keys, 2, slots), layout.pad(values, 2, slots)
    kv_index = layout.pad(kv_index, 1, slots, value=-1)
    turn = None if rope is None else (layout.pad(rope[0], 1, slots), layout.pad(rope[1], 1, slots))

    # Rows of filling repeat the last row's order, so that they do not make a block need a mask.
    total = layout.up(real, tiles.rows)
    order = query_index.repeat(real // tokens, axis=1)
    order = layout.pad(order, 1, total, mode="edge")
    rows = forward.Rows(layout.pad(layout.fold(query, heads), 2, total), order, order)

    mask = blocks.Mask(sink=sink, window=window)
    cols = blocks.columns(kv_index, kv_index, tiles.keys)
    visits = blocks.lists(mask, order, order, cols, tiles.rows)
    out, lse = forward.attend(
        rows,
        keys,
        values,
        cols,
        visits,
        scale=scale,
        mask=mask,
        tiles=tiles,
        turn=turn,
        value_lanes=value_lanes,
        kept=layout.up(real, 8),
        machine=Machine(interpret),
    )
    out, lse = out[:, :, :, :real], lse[..., :real]
    whole, total_lse = layout.merge(out, lse) if tiles.splits > 1 else (out[0], lse[0])
    attended = layout.unfold(whole, tokens).astype(query.dtype)
    return (attended, layout.unfold_scalars(total_lse, tokens)) if return_lse else attended
