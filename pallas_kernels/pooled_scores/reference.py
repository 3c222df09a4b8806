"""The contract of `pooled_scores`, written to be read: dense and float32."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def pooled_scores(
    query: Float[Array, "B T N H"],
    keys: Float[Array, "B K C H"],
    query_index: Int[Array, "B T"],
    kv_index: Int[Array, "B C"],
    rope: tuple[Float[Array, "B C half"], Float[Array, "B C half"]] | None = None,
    lse: Float[Array, "B N T"] | None = None,
    *,
    scale: float,
) -> Float[Array, "B K C"]:
    del lse  # it follows from the other arguments
    if rope is not None:
        cos, sin = (jnp.expand_dims(x, 1).astype(jnp.float32) for x in rope)
        half = keys.shape[-1] // 2
        first, second = keys[..., :half].astype(jnp.float32), keys[..., half:].astype(jnp.float32)
        keys = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], -1).astype(keys.dtype)
    batch, groups, slots, _ = keys.shape
    keys = jnp.repeat(keys.astype(jnp.float32), query.shape[2] // groups, axis=1)
    score = scale * jnp.einsum("brnh,bnch->bnrc", query.astype(jnp.float32), keys, precision="highest")
    q, k = query_index[:, None, :, None], kv_index[:, None, None, :]
    visible = (k >= 0) & (k <= q)
    weight = jnp.where(visible, jax.nn.softmax(jnp.where(visible, score, -1e30), axis=-1), 0)
    real = jnp.maximum((query_index >= 0).sum(-1), 1)  # queries
    return weight.sum(2).reshape(batch, groups, -1, slots).mean(2) / real[:, None, None]
