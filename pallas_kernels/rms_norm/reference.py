"""The contract of `rms_norm`, written to be read."""

import jax
import jax.numpy as jnp


def rms_norm(x: jax.Array, weight: jax.Array, *, eps: float) -> jax.Array:
    wide = x.astype(jnp.float32)
    mean_square = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
    return (wide / jnp.sqrt(mean_square + eps)).astype(x.dtype) * weight
