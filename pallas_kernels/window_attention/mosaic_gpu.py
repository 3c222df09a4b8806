"""`window_attention` for Hopper GPUs: the forward kernel with segments in place of orders.

Segments are static, so the blocks that each block of patches visits are constants of the program; a window of 64 patches
meets two blocks of keys at most, a full grid all of them. The head dimension of 80 is used as it is; 72 (Qwen3-VL) becomes 80
with zeros, which change no score.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pallas_kernels.hopper import blocks, forward, layout, limits
from pallas_kernels.hopper.device import Machine

HEAD = 16  # the tensor cores' kernels take multiples of it


def unsupported(query: jax.Array, keys: jax.Array, values: jax.Array, **options: Any) -> str | None:
    """Why the kernel cannot run on these arrays; None if it can."""
    heads = (query, keys, values)
    whole: list[Any] = [jax.ShapeDtypeStruct((*x.shape[:-1], layout.up(x.shape[-1], HEAD)), x.dtype) for x in heads]
    return limits.unsupported(*whole)


def window_attention(
    query: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    *,
    segments: tuple[int, ...],
    scale: float,
    interpret: Any = None,
) -> jax.Array:
    patches, head = query.shape[0], query.shape[-1]
    query, keys, values = (layout.pad(x, 2, layout.up(head, HEAD)) for x in (query, keys, values))
    small = max(segments) <= 64
    tiles = forward.Tiles(warpgroups=1, keys=64, stages=2, splits=1) if small else forward.Tiles(2, 128, 2, 1)
    total = layout.up(patches, max(tiles.rows, tiles.keys))
    q, k, v = (layout.pad(x.swapaxes(0, 1)[None], 2, total) for x in (query, keys, values))
    segment = np.full((1, total), -1, np.int32)
    segment[0, :patches] = np.repeat(np.arange(len(segments)), segments)

    mask = blocks.Mask(causal=False, segments=True)
    order, ids = jnp.asarray(np.minimum(segment, 0)), jnp.asarray(segment)
    cols = blocks.columns(order, ids, tiles.keys)
    visits = blocks.lists(mask, order, ids, cols, tiles.rows)
    rows = forward.Rows(q, order, ids)
    out, _ = forward.attend(rows, k, v, cols, visits, scale=scale, mask=mask, tiles=tiles, machine=Machine(interpret))
    return out[0, 0, :, :patches, :head].swapaxes(0, 1)
