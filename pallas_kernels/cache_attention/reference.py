"""The contract of `cache_attention`, written to be read: dense, float32, nothing shared between heads."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def cache_attention(
    query: Float[Array, "B T N H"],
    keys: Float[Array, "B K C H"],
    values: Float[Array, "B K C H"],
    query_order: Int[Array, "B T"],
    slot_order: Int[Array, "B C"],
    *,
    scale: float,
) -> Float[Array, "B T N H"]:
    group = query.shape[2] // keys.shape[1]
    keys = jnp.repeat(keys.astype(jnp.float32), group, axis=1)
    values = jnp.repeat(values.astype(jnp.float32), group, axis=1)
    score = scale * jnp.einsum("btnh,bnch->bntc", query.astype(jnp.float32), keys, precision="highest")
    visible = (slot_order[:, None, :] >= 0) & (slot_order[:, None, :] <= query_order[:, :, None])
    visible = visible[:, None]
    # A row of padding sees nothing: an ordinary softmax over any finite scores, whose weights are then dropped.
    weight = jnp.where(visible, jax.nn.softmax(jnp.where(visible, score, -1e30), axis=-1), 0)
    return jnp.einsum("bntc,bnch->btnh", weight, values, precision="highest").astype(query.dtype)
