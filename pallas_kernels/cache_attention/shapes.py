"""Shapes of `cache_attention`: Qwen2.5-VL-7B, one stream unless said otherwise, bfloat16.

T: a decoded word, a short turn, a small and a large clip. C: a short stream, 8k, and the ring of 720p x 16 s.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from pallas_kernels.cache_attention.api import cache_attention
from pallas_kernels.shapes import Case

N, K, H = 28, 4, 128
RING = 13_440  # slots of 720p, 16 s, 512 + 512 words


def sample(key: jax.Array, *, batch: int, tokens: int, slots: int, rope: bool = False) -> tuple[Any, ...]:
    """A ring with all slots live, the last T tokens of which are the queries; slot order means nothing."""
    keys = jax.random.split(key, 5)
    query = jax.random.normal(keys[0], (batch, tokens, N, H), jnp.bfloat16)
    cache, values = (jax.random.normal(k, (batch, K, slots, H), jnp.bfloat16) for k in keys[1:3])
    kv_index = jnp.broadcast_to(jax.random.permutation(keys[3], slots), (batch, slots)).astype(jnp.int32)
    query_index = jnp.broadcast_to(jnp.arange(slots - tokens, slots), (batch, tokens)).astype(jnp.int32)
    if not rope:
        return query, cache, values, query_index, kv_index
    angles = jax.random.uniform(keys[4], (batch, slots, H // 2), maxval=100.0)
    return query, cache, values, query_index, kv_index, jnp.cos(angles), jnp.sin(angles)


def attend(implementation: Any, *arrays: jax.Array, **options: Any) -> Any:
    rope = (arrays[5], arrays[6]) if len(arrays) == 7 else None
    return cache_attention(*arrays[:5], rope=rope, scale=H**-0.5, implementation=implementation, **options)


def case(tokens: int, slots: int, batch: int = 1, *, rope: bool = False, **options: Any) -> Case:
    name = f"B{batch} T{tokens} C{slots}" + " rope" * rope + "".join(f" {k}{v}" for k, v in options.items())
    read = batch * slots * (2 * K * H * 2 + 4 + 4 * H * rope)
    return Case(
        "cache_attention",
        name,
        functools.partial(sample, batch=batch, tokens=tokens, slots=slots, rope=rope),
        functools.partial(attend, **options),
        flops=4 * batch * N * H * tokens * (slots - tokens / 2),
        bytes=read + 2 * batch * tokens * N * H * 2,
    )


CASES = (
    *(case(tokens, slots) for tokens in (1, 50, 320, 800) for slots in (2048, 8192, RING)),
    case(1, 8192, batch=8),
    case(1, RING, rope=True),
    case(800, RING, rope=True),
    case(800, 8192, sink=512, window=4096),
)
