"""The contract of `decode_attention`, written to be read: dense, float32, the token appended as one more slot."""

from typing import Any

import jax
import jax.numpy as jnp

from pallas_kernels.cache_attention import reference


def decode_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    keys: jax.Array,
    rotated: jax.Array,
    values: jax.Array,
    slots: jax.Array,
    query_index: jax.Array,
    kv_index: jax.Array,
    cos: jax.Array,
    sin: jax.Array,
    lanes: jax.Array | None = None,
    live: Any = None,
    *,
    scale: float,
) -> Any:
    batch = len(query)
    query, rotated_key = turned(query, cos, sin), turned(key, cos, sin)
    owned = jnp.arange(batch) if lanes is None else lanes
    seen = jnp.where(kv_index < query_index, kv_index, -1)
    out = reference.cache_attention(
        query,
        jnp.concatenate([rotated, rotated_key.swapaxes(1, 2)], 2),
        jnp.concatenate([values.at[owned].get(mode="clip"), value.swapaxes(1, 2)], 2),
        query_index,
        jnp.concatenate([seen, query_index], 1),
        scale=scale,
    )
    written = [keys, rotated, values]
    for stream in range(batch):
        for i, (lane, new) in enumerate(((owned[stream], key), (stream, rotated_key), (owned[stream], value))):
            written[i] = written[i].at[lane, :, slots[stream, 0]].set(new[stream, 0], mode="drop")
    return out, *written


def turned(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """x (B, 1, heads, H) with its pairs (i, i + H/2) turned by their angles (Su et al. 2021)."""
    cos, sin = cos[:, :, None], sin[:, :, None]
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], -1).astype(x.dtype)
