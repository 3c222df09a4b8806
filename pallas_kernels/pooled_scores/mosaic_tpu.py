"""`pooled_scores` on TPUs: one product, one exponential and a sum over rows for every block of keys.

    grid (stream, key head k, block of keys s, block of rows i)

    rows of the queries that share key head k   q   (rows, H) ┐
    their log-sum-exp                           lse (1, rows) ├─> exp(q · kᵀ - lse), summed over rows ─> out (1, keys)
    keys                                        k   (keys, H) ┘   added up over i

Without a log-sum-exp, `tpu.forward` makes one pass before.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float, Int

from pallas_kernels.cache_attention.mosaic_tpu import unsupported
from pallas_kernels.masking import Rope
from pallas_kernels.tpu.blocks import pad_tokens, round_up
from pallas_kernels.tpu.forward import BLOCK_KEYS, BLOCK_ROWS, TILE_ROWS, attend, dot, turned, visible_block

__all__ = ["pooled_scores", "unsupported"]


def pooled_scores(
    query: Float[Array, "B T N H"],
    keys: Float[Array, "B K C H"],
    query_index: Int[Array, "B T"],
    kv_index: Int[Array, "B C"],
    rope: Rope | None = None,
    lse: Float[Array, "B N T"] | None = None,
    *,
    scale: float,
    interpret: Any = False,
) -> Float[Array, "B K C"]:
    batch, tokens, heads, dim = query.shape
    groups, slots = keys.shape[1:3]
    group = heads // groups
    rows = query.transpose(0, 2, 1, 3).reshape(batch, groups, group * tokens, dim)
    order = jnp.tile(query_index, (1, group))
    if lse is None:
        _, known = attend(rows, keys, keys, order, kv_index, None, rope, scale=scale, interpret=interpret)
    else:
        known = lse.reshape(batch, groups, group * tokens)
    total = _sums(rows, keys, order, kv_index, known, rope, scale=scale, interpret=interpret)
    real = jnp.maximum((query_index >= 0).sum(-1), 1)  # queries
    return total[:, :, :slots] / (real * group)[:, None, None]


@functools.partial(jax.jit, static_argnames=("scale", "interpret"))
def _sums(
    rows: Float[Array, "B K R H"],
    keys: Float[Array, "B K C H"],
    row_order: Int[Array, "B R"],
    kv_index: Int[Array, "B C"],
    lse: Float[Array, "B K R"],
    rope: Rope | None,
    *,
    scale: float,
    interpret: Any,
) -> Float[Array, "B K C"]:
    batch, groups, count, dim = rows.shape
    slots = keys.shape[2]
    block_rows = min(BLOCK_ROWS, round_up(count, TILE_ROWS))
    block_keys = min(BLOCK_KEYS, round_up(slots, 128))
    padded, width = round_up(count, block_rows), round_up(slots, block_keys)
    rows = jnp.pad(rows, ((0, 0), (0, 0), (0, padded - count), (0, 0)))
    lse = jnp.pad(lse, ((0, 0), (0, 0), (0, padded - count)))[:, :, None]
    row_order, kv_index = pad_tokens(row_order, padded)[:, None], pad_tokens(kv_index, width)[:, None]
    angle = pl.BlockSpec((1, block_keys, dim // 2), lambda b, k, s, i: (b, s, 0))
    return pl.pallas_call(
        functools.partial(_kernel, scale=scale),
        grid=(batch, groups, width // block_keys, padded // block_rows),
        in_specs=[
            pl.BlockSpec((1, 1, block_rows, dim), lambda b, k, s, i: (b, k, i, 0)),
            pl.BlockSpec((1, 1, block_keys, dim), lambda b, k, s, i: (b, k, s, 0)),
            pl.BlockSpec((1, 1, 1, block_rows), lambda b, k, s, i: (b, k, 0, i)),
            pl.BlockSpec((1, 1, block_rows), lambda b, k, s, i: (b, 0, i)),
            pl.BlockSpec((1, 1, block_keys), lambda b, k, s, i: (b, 0, s)),
            () if rope is None else (angle, angle),
        ],
        out_specs=pl.BlockSpec((1, 1, 1, block_keys), lambda b, k, s, i: (b, k, 0, s)),
        out_shape=jax.ShapeDtypeStruct((batch, groups, 1, width), jnp.float32),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel", "parallel", "arbitrary")),
        interpret=interpret,
        name="pooled_scores",
    )(rows, keys, lse, row_order, kv_index, () if rope is None else rope)[:, :, 0]


def _kernel(q: Any, k: Any, lse: Any, row_order: Any, kv_index: Any, rope: Any, out: Any, *, scale: float) -> None:
    @pl.when(pl.program_id(3) == 0)
    def _() -> None:
        out[...] = jnp.zeros_like(out)

    score = scale * dot(q[0, 0], turned(k[0, 0], rope), 1, 1)
    weight = jnp.where(visible_block([(row_order, kv_index)], None, None), jnp.exp(score - lse[0, 0].T), 0)
    out[0, 0] += weight.sum(0, keepdims=True)
