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
    scales: Any = None,
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
    scales: None = None,
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
    rows, order = layout.fold(query, heads), query_index.repeat(real // tokens, axis=1)
    mask = blocks.Mask(sink=sink, window=window)
    out, lse = parts(
        rows, order, keys, values, kv_index, rope, value_lanes, real=real, scale=scale, mask=mask, interpret=interpret
    )
    out, lse = out[:, :, :, :real], lse[..., :real]
    whole, total_lse = layout.merge(out, lse) if len(out) > 1 else (out[0], lse[0])
    attended = layout.unfold(whole, tokens).astype(query.dtype)
    return (attended, layout.unfold_scalars(total_lse, tokens)) if return_lse else attended


def parts(
    rows: jax.Array,
    order: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    kv_index: jax.Array,
    rope: tuple[jax.Array, jax.Array] | None = None,
    value_lanes: jax.Array | None = None,
    *,
    real: int,
    scale: float,
    mask: blocks.Mask,
    live: blocks.LiveBlocks | None = None,
    interpret: Any = None,
) -> tuple[jax.Array, jax.Array]:
    """Rows (B, K, R, H) of orders (B, R) over parts of the cache: outputs (parts, B, K, R, H), log-sum-exp (parts, B, K, R).

    Only the first `real` rows count. live: the blocks to visit, made beforehand; None = those that the rows see some slot of.
    """
    batch, heads = rows.shape[:2]
    tiles = forward.choose(real, keys.shape[2], batch * heads, rotates=rope is not None)
    slots = max(layout.up(keys.shape[2], 8), tiles.keys)
    keys, values = layout.pad(keys, 2, slots), layout.pad(values, 2, slots)
    turn = None if rope is None else (layout.pad(rope[0], 1, slots), layout.pad(rope[1], 1, slots))

    # Rows of filling repeat the last row's order, so that they do not make a block need a mask.
    total = layout.up(real, tiles.rows)
    order = layout.pad(order, 1, total, mode="edge")
    if live is None:
        kv_index = layout.pad(kv_index, 1, slots, value=-1)
        cols = blocks.columns(kv_index, kv_index, tiles.keys)
        live = blocks.LiveBlocks(cols, blocks.lists(mask, order, order, cols, tiles.rows))
    return forward.attend(
        forward.Rows(layout.pad(rows, 2, total), order, order),
        keys,
        values,
        *live,
        scale=scale,
        mask=mask,
        tiles=tiles,
        turn=turn,
        value_lanes=value_lanes,
        kept=layout.up(real, 8),
        machine=Machine(interpret),
    )
