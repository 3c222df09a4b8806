"""`pooled_scores` for every device that XLA compiles for: one block of queries after the other is added to the sums."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from pallas_kernels.masking import FAR, Rope, pairs, turned

BLOCK = 16  # queries a block: 28 heads x 16 queries x 13,440 slots of float32 are 24 MB


def pooled_scores(
    query: Float[Array, "B T N H"],
    keys: Float[Array, "B K C H"],
    query_index: Int[Array, "B T"],
    kv_index: Int[Array, "B C"],
    rope: Rope | None = None,
    lse: Float[Array, "B N T"] | None = None,
    *,
    scale: float,
) -> Float[Array, "B K C"]:
    batch, tokens, heads, dim = query.shape
    groups, slots = keys.shape[1:3]
    keys = turned(keys, rope)
    exact = lax.Precision.HIGHEST if query.dtype == jnp.float32 else lax.Precision.DEFAULT
    blocks = -(-tokens // BLOCK)
    padding = blocks * BLOCK - tokens
    rows = jnp.pad(query, ((0, 0), (0, padding), (0, 0), (0, 0)))
    rows = rows.reshape(batch, blocks, BLOCK, groups, heads // groups, dim).transpose(1, 0, 3, 4, 2, 5)
    orders = jnp.pad(query_index, ((0, 0), (0, padding)), constant_values=-1).reshape(batch, blocks, BLOCK).swapaxes(0, 1)
    known = None
    if lse is not None:
        known = jnp.pad(lse, ((0, 0), (0, 0), (0, padding))).reshape(batch, groups, heads // groups, blocks, BLOCK)
        known = known.transpose(3, 0, 1, 2, 4)

    def add(total: jax.Array, block: tuple[jax.Array, jax.Array, jax.Array | None]) -> tuple[jax.Array, None]:
        query, order, lse = block
        score = scale * jnp.einsum("bkgrh,bkch->bkgrc", query, keys, precision=exact, preferred_element_type=jnp.float32)
        visible = pairs(order, kv_index, None, None)[:, None, None]
        if lse is None:
            lse = jax.nn.logsumexp(jnp.where(visible, score, FAR), axis=-1)
        weight = jnp.where(visible, jnp.exp(jnp.where(visible, score - lse[..., None], 0)), 0)
        return total + weight.sum((2, 3)), None

    total, _ = lax.scan(add, jnp.zeros((batch, groups, slots), jnp.float32), (rows, orders, known))
    real = jnp.maximum((query_index >= 0).sum(-1), 1)  # queries
    return total / (real * (heads // groups))[:, None, None]
