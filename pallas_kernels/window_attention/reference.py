"""The contract of `window_attention`, written to be read: one dense float32 mask over all pairs of patches."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def window_attention(
    query: Float[Array, "patches N H"],
    keys: Float[Array, "patches N H"],
    values: Float[Array, "patches N H"],
    *,
    segments: tuple[int, ...],
    scale: float,
) -> Float[Array, "patches N H"]:
    segment = np.repeat(np.arange(len(segments)), segments)
    query32, keys32, values32 = (x.astype(jnp.float32) for x in (query, keys, values))
    score = scale * jnp.einsum("pnh,qnh->npq", query32, keys32, precision="highest")
    weight = jax.nn.softmax(jnp.where(segment[:, None] == segment, score, -jnp.inf), axis=-1)
    return jnp.einsum("npq,qnh->pnh", weight, values32, precision="highest").astype(query.dtype)
