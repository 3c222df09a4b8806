"""The contract of `cache_attention`, written to be read: dense, float32, nothing shared between heads."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def cache_attention(
    query: Float[Array, "B T N H"],
    keys: Float[Array, "B K C H"],
    values: Float[Array, "P K C H"],
    query_index: Int[Array, "B T"],
    kv_index: Int[Array, "B C"],
    rope: tuple[Float[Array, "B C half"], Float[Array, "B C half"]] | None = None,
    value_lanes: Int[Array, "B"] | None = None,
    scales: tuple[Float[Array, "B K C"], Float[Array, "P K C"]] | None = None,
    *,
    scale: float,
    sink: int | None = None,
    window: int | None = None,
    return_lse: bool = False,
) -> Float[Array, "B T N H"] | tuple[Float[Array, "B T N H"], Float[Array, "B N T"]]:
    if scales is not None:
        keys, values = (x.astype(jnp.float32) * each[..., None] for x, each in zip((keys, values), scales, strict=True))
    if rope is not None:
        cos, sin = (jnp.expand_dims(x, 1).astype(jnp.float32) for x in rope)
        half = keys.shape[-1] // 2
        first, second = keys[..., :half].astype(jnp.float32), keys[..., half:].astype(jnp.float32)
        keys = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], -1).astype(keys.dtype)
    if value_lanes is not None:
        values = values.at[value_lanes].get(mode="clip")
    group = query.shape[2] // keys.shape[1]
    keys = jnp.repeat(keys.astype(jnp.float32), group, axis=1)
    values = jnp.repeat(values.astype(jnp.float32), group, axis=1)
    score = scale * jnp.einsum("btnh,bnch->bntc", query.astype(jnp.float32), keys, precision="highest")

    q, k = query_index[:, None, :, None], kv_index[:, None, None, :]
    visible = (k >= 0) & (k <= q)
    if window is not None:
        visible &= (k < (sink or 0)) | (q - k < window)

    # A row of padding sees nothing: an ordinary softmax over any finite scores, whose weights are then dropped.
    score = jnp.where(visible, score, -1e30)
    weight = jnp.where(visible, jax.nn.softmax(score, axis=-1), 0)
    out = jnp.einsum("bntc,bnch->btnh", weight, values, precision="highest").astype(query.dtype)
    lse = jnp.where(visible.any(-1), jax.nn.logsumexp(score, axis=-1), -1e30)
    return (out, lse) if return_lse else out
