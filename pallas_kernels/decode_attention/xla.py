"""`decode_attention` for every device that XLA compiles for: three writes, then the best `cache_attention` of the device."""

from typing import Any

import jax

from pallas_kernels import slots as rows
from pallas_kernels.cache_attention import cache_attention
from pallas_kernels.decode_attention.reference import turned


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
    query, rotated_key = turned(query, cos, sin), turned(key, cos, sin)
    keys = rows.write(keys, key, slots, lanes)
    rotated = rows.write(rotated, rotated_key, slots)
    values = rows.write(values, value, slots, lanes)
    out = cache_attention(query, rotated, values, query_index, kv_index, value_lanes=lanes, scale=scale)
    return out, keys, rotated, values
