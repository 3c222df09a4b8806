"""`flash_attention` for Hopper GPUs: `hopper.forward` and `hopper.backward` over the pairs of blocks that see each other.

Causal order, packed segments, sink and window skip whole blocks, and blocks that are visible throughout need no mask; no
mask is ever held as an array.
"""

from typing import Any

import jax

from pallas_kernels.hopper import backward as passes
from pallas_kernels.hopper import blocks, layout, limits
from pallas_kernels.hopper import forward as kernel
from pallas_kernels.hopper.device import LOG2E, Machine

FORWARD = kernel.Tiles(warpgroups=2, keys=128, stages=2, splits=1)
Tokens = jax.Array  # (B, T)


def unsupported(query: jax.Array, keys: jax.Array, values: jax.Array, *rest: Any, **options: Any) -> str | None:
    """Why the kernel cannot run on these arrays; None if it can."""
    return limits.unsupported(query, keys, values)


def forward(
    query: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    order: Tokens,
    segment_ids: Tokens | None,
    *,
    scale: float,
    sink: int | None = None,
    window: int | None = None,
    in_order: bool = False,
    interpret: Any = None,
) -> tuple[jax.Array, jax.Array]:
    tokens, heads = query.shape[1], keys.shape[2]
    q, k, v = _by_key_head(heads, query, keys, values)
    mask, order, segment = _who(query, order, segment_ids, sink, window)
    rows = kernel.Rows(q, *_repeat(q, order, segment))
    cols = blocks.columns(order, segment, FORWARD.keys)
    visits = blocks.lists(mask, rows.order, rows.segment, cols, FORWARD.rows)
    out, lse = kernel.attend(
        rows, k, v, cols, visits, scale=scale, mask=mask, tiles=FORWARD, machine=Machine(interpret)
    )  # fmt: skip
    length = order.shape[1]
    return layout.unfold(out[0], length)[:, :tokens], layout.unfold_scalars(lse[0], length)[..., :tokens]


def backward(
    query: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    order: Tokens,
    segment_ids: Tokens | None,
    out: jax.Array | None,
    lse: jax.Array,
    delta: jax.Array,
    d_out: jax.Array,
    *,
    scale: float,
    sink: int | None = None,
    window: int | None = None,
    in_order: bool = False,
    interpret: Any = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    tokens, heads = query.shape[1], keys.shape[2]
    q, k, v, d_o = _by_key_head(heads, query, keys, values, d_out.astype(query.dtype))
    mask, order, segment = _who(query, order, segment_ids, sink, window)
    row_order, row_segment = _repeat(q, order, segment)
    length = order.shape[1]
    row_lse, row_delta = (layout.fold_scalars(layout.pad(x, 2, length), heads) for x in (lse * LOG2E, delta))
    narrow, wide = (blocks.columns(order, segment, size) for size in (passes.WALK, passes.OWN))
    column = narrow.order.reshape(order.shape)
    given = passes.Given(q, k, v, d_o, row_lse, row_delta, row_order, row_segment, column, segment)
    options: dict[str, Any] = {"scale": scale, "mask": mask, "machine": Machine(interpret)}
    d_query = passes.d_queries(given, blocks.lists(mask, row_order, row_segment, narrow, passes.OWN), **options)
    d_keys, d_values = passes.d_keys_values(
        given, blocks.transposed(mask, row_order, row_segment, wide, passes.WALK), **options
    )
    d_query = layout.unfold(d_query, length)[:, :tokens]
    return d_query, *(x.swapaxes(1, 2)[:, :tokens] for x in (d_keys, d_values))


def _by_key_head(heads: int, *arrays: jax.Array) -> tuple[jax.Array, ...]:
    """(B, T, N, H) -> (B, K, T·G, H) with T filled up to whole blocks, which makes the rows whole blocks too."""
    length = layout.up(arrays[0].shape[1], passes.OWN)
    return tuple(layout.fold(layout.pad(x, 1, length), heads) for x in arrays)


def _who(
    query: jax.Array, order: Tokens, segment_ids: Tokens | None, sink: int | None, window: int | None
) -> tuple[blocks.Mask, Tokens, Tokens]:
    length = layout.up(query.shape[1], passes.OWN)
    mask = blocks.Mask(sink=sink, window=window, segments=segment_ids is not None)
    segment = order if segment_ids is None else segment_ids
    return mask, layout.pad(order, 1, length, value=blocks.PADDING), layout.pad(segment, 1, length, value=blocks.PADDING)


def _repeat(rows: jax.Array, *lines: Tokens) -> tuple[Tokens, ...]:
    """What is known of each token, for each of its rows."""
    return tuple(x.repeat(rows.shape[2] // x.shape[1], axis=1) for x in lines)
