"""`cache_attention` for every device that XLA compiles for.

Query heads are grouped by the key head they share, so keys are read where they lie. Long prefills are cut into blocks of
queries: 28 heads x 768 queries x 13,440 slots of float32 scores would be 1.1 GB a layer.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from pallas_kernels.masking import FAR, Rope, pairs, turned

BLOCK = 128  # queries a block
DENSE_SCORES = 2**25  # scores that may exist at once: 128 MiB of float32


def cache_attention(
    query: Float[Array, "B T N H"],
    keys: Float[Array, "B K C H"],
    values: Float[Array, "P K C H"],
    query_index: Int[Array, "B T"],
    kv_index: Int[Array, "B C"],
    rope: Rope | None = None,
    value_lanes: Int[Array, "B"] | None = None,
    *,
    scale: float,
    sink: int | None = None,
    window: int | None = None,
    return_lse: bool = False,
) -> Float[Array, "B T N H"] | tuple[Float[Array, "B T N H"], Float[Array, "B N T"]]:
    batch, tokens, heads, _ = query.shape
    keys = turned(keys, rope)

    def attend(query: jax.Array, query_index: jax.Array) -> tuple[jax.Array, jax.Array]:
        return _attend(query, keys, values, pairs(query_index, kv_index, sink, window), scale, value_lanes)

    if tokens <= BLOCK or batch * tokens * heads * keys.shape[2] <= DENSE_SCORES:
        out, lse = attend(query, query_index)
        return (out, lse) if return_lse else out
    blocks = -(-tokens // BLOCK)
    padding = blocks * BLOCK - tokens
    cut_query = jnp.pad(query, ((0, 0), (0, padding), (0, 0), (0, 0))).reshape(batch, blocks, BLOCK, heads, -1)
    cut_order = jnp.pad(query_index, ((0, 0), (0, padding)), constant_values=-1).reshape(batch, blocks, BLOCK)
    out, lse = lax.map(lambda block: attend(*block), (cut_query.swapaxes(0, 1), cut_order.swapaxes(0, 1)))
    out = out.swapaxes(0, 1).reshape(batch, blocks * BLOCK, heads, -1)[:, :tokens]
    lse = lse.transpose(1, 2, 0, 3).reshape(batch, heads, -1)[:, :, :tokens]
    return (out, lse) if return_lse else out


def _attend(
    query: jax.Array, keys: jax.Array, values: jax.Array, visible: jax.Array, scale: float, value_lanes: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Output (B, T, N, H) and log-sum-exp (B, N, T) where visible is (B, T, C)."""
    batch, tokens, heads, dim = query.shape
    groups = keys.shape[1]
    exact = lax.Precision.HIGHEST if query.dtype == jnp.float32 else lax.Precision.DEFAULT
    # Rows of one key head side by side: one (G·T, H) x (H, C) product a key head.
    rows = query.reshape(batch, tokens, groups, heads // groups, dim).transpose(0, 2, 3, 1, 4)
    rows = rows.reshape(batch, groups, -1, dim)
    score = scale * jnp.einsum("bkrh,bkch->bkrc", rows, keys, precision=exact, preferred_element_type=jnp.float32)
    score = score.reshape(batch, groups, heads // groups, tokens, -1)
    # One small mask for all heads, added: its exponentials are exactly 0, and so are whole rows that see nothing below.
    score += jnp.where(visible, 0, FAR)[:, None, None]
    top = jnp.max(score, -1, keepdims=True)
    weight = jnp.exp(score - top)
    total = jnp.sum(weight, -1, keepdims=True)
    seen = top > FAR / 2
    lse = jnp.where(seen, top + jnp.log(total), FAR)[..., 0].reshape(batch, heads, tokens)
    weight = weight.reshape(batch, groups, -1, weight.shape[-1]).astype(values.dtype)
    weigh = functools.partial(jnp.einsum, precision=exact, preferred_element_type=jnp.float32)
    if value_lanes is None:
        out = weigh("bkrc,bkch->bkrh", weight, values)
    else:
        # One row after the other: gathered rows would be a copy of all their values.
        lanes = jnp.clip(value_lanes, 0, len(values) - 1)
        out = lax.map(lambda row: weigh("krc,kch->krh", row[0], values[row[1]]), (weight, lanes))
    out = jnp.where(seen, out.reshape(batch, groups, heads // groups, tokens, dim) / total, 0)
    return out.transpose(0, 3, 1, 2, 4).reshape(query.shape).astype(query.dtype), lse
