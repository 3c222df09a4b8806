"""The contract of `flash_attention`, written to be read: dense, float32, nothing shared between heads."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def flash_attention(
    query: Float[Array, "B T N H"],
    keys: Float[Array, "B T K H"],
    values: Float[Array, "B T K H"],
    order: Int[Array, "B T"],
    segment_ids: Int[Array, "B T"] | None,
    *,
    scale: float,
    sink: int | None,
    window: int | None,
    in_order: bool = False,
) -> tuple[Float[Array, "B T N H"], Float[Array, "B N T"]]:
    group = query.shape[2] // keys.shape[2]
    query32, keys32, values32 = (x.astype(jnp.float32) for x in (query, keys, values))
    keys32, values32 = jnp.repeat(keys32, group, axis=2), jnp.repeat(values32, group, axis=2)
    score = scale * jnp.einsum("btnh,bsnh->bnts", query32, keys32, precision="highest")

    t, s = order[:, None, :, None], order[:, None, None, :]
    visible = (s >= 0) & (s <= t)
    if window is not None:
        visible &= (s < (sink or 0)) | (t - s < window)
    if segment_ids is not None:
        visible &= segment_ids[:, None, :, None] == segment_ids[:, None, None, :]

    # A row of padding sees nothing: an ordinary softmax over any finite scores, whose weights are then dropped.
    score = jnp.where(visible, score, -1e30)
    weight = jnp.where(visible, jax.nn.softmax(score, axis=-1), 0)
    out = jnp.einsum("bnts,bsnh->btnh", weight, values32, precision="highest").astype(query.dtype)
    return out, jnp.where(visible.any(-1), jax.nn.logsumexp(score, axis=-1), -1e30)
