"""`cache_attention` for every device that XLA compiles for.

Query heads are grouped by the key head they share, so keys are read where they lie. Long prefills are cut into blocks of
queries: 28 heads x 768 queries x 13,335 slots of float32 scores would be 1.1 GB a layer.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

FAR = -1e30  # a masked score: finite, so that a row that sees nothing stays finite
BLOCK = 128  # queries a block
DENSE_SCORES = 2**25  # scores that may exist at once: 128 MiB of float32


def cache_attention(
    query: Float[Array, "B T N H"],
    keys: Float[Array, "B K C H"],
    values: Float[Array, "B K C H"],
    query_order: Int[Array, "B T"],
    slot_order: Int[Array, "B C"],
    *,
    scale: float,
) -> Float[Array, "B T N H"]:
    batch, tokens, heads, _ = query.shape
    if tokens <= BLOCK or batch * tokens * heads * keys.shape[2] <= DENSE_SCORES:
        return _attend(query, keys, values, query_order, slot_order, scale)
    blocks = -(-tokens // BLOCK)
    padding = blocks * BLOCK - tokens
    cut_query = jnp.pad(query, ((0, 0), (0, padding), (0, 0), (0, 0))).reshape(batch, blocks, BLOCK, heads, -1)
    cut_order = jnp.pad(query_order, ((0, 0), (0, padding)), constant_values=-1).reshape(batch, blocks, BLOCK)
    out = lax.map(
        lambda block: _attend(block[0], keys, values, block[1], slot_order, scale),
        (cut_query.swapaxes(0, 1), cut_order.swapaxes(0, 1)),
    )
    return out.swapaxes(0, 1).reshape(batch, blocks * BLOCK, heads, -1)[:, :tokens]


def _attend(
    query: jax.Array, keys: jax.Array, values: jax.Array, query_order: jax.Array, slot_order: jax.Array, scale: float
) -> jax.Array:
    batch, tokens, heads, dim = query.shape
    groups = keys.shape[1]
    exact = lax.Precision.HIGHEST if query.dtype == jnp.float32 else lax.Precision.DEFAULT
    # Rows of one key head side by side: one (G·T, H) x (H, C) product a key head.
    rows = query.reshape(batch, tokens, groups, heads // groups, dim).transpose(0, 2, 3, 1, 4)
    rows = rows.reshape(batch, groups, -1, dim)
    score = scale * jnp.einsum("bkrh,bkch->bkrc", rows, keys, precision=exact, preferred_element_type=jnp.float32)
    score = score.reshape(batch, groups, heads // groups, tokens, -1)
    visible = (slot_order[:, None, :] >= 0) & (slot_order[:, None, :] <= query_order[:, :, None])
    score = jnp.where(visible[:, None, None], score, FAR)
    top = jnp.max(score, -1, keepdims=True)
    weight = jnp.where(visible[:, None, None], jnp.exp(score - top), 0)
    total = jnp.maximum(jnp.sum(weight, -1, keepdims=True), jnp.finfo(jnp.float32).tiny)
    weight = weight.reshape(batch, groups, -1, weight.shape[-1]).astype(values.dtype)
    out = jnp.einsum("bkrc,bkch->bkrh", weight, values, precision=exact, preferred_element_type=jnp.float32)
    out = out.reshape(batch, groups, heads // groups, tokens, dim) / total
    return out.transpose(0, 3, 1, 2, 4).reshape(query.shape).astype(query.dtype)
