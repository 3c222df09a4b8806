"""Shapes of `decode_attention`: a token of Qwen2.5-VL-7B over the ring of 720p x 16 s, bfloat16, one stream and eight."""

from typing import Any

import jax
import jax.numpy as jnp

from pallas_kernels.cache_attention.shapes import RING, H, K, N
from pallas_kernels.decode_attention.api import decode_attention
from pallas_kernels.shapes import Case


def call(implementation: Any, *arrays: Any) -> Any:
    return decode_attention(*arrays, scale=H**-0.5, implementation=implementation)


def case(batch: int, slots: int) -> Case:
    def sample(key: jax.Array) -> tuple[Any, ...]:
        """A ring with all slots live but the token's own; slot order means nothing."""
        seeds = jax.random.split(key, 9)
        query = jax.random.normal(seeds[0], (batch, 1, N, H), jnp.bfloat16)
        new = [jax.random.normal(seed, (batch, 1, K, H), jnp.bfloat16) for seed in seeds[1:3]]
        stores = [jax.random.normal(seed, (batch, K, slots, H), jnp.bfloat16) for seed in seeds[4:7]]
        order = jnp.broadcast_to(jax.random.permutation(seeds[7], slots), (batch, slots)).astype(jnp.int32)
        slot = jnp.argmax(order, axis=1, keepdims=True).astype(jnp.int32)
        angles = jax.random.uniform(seeds[8], (batch, 1, H // 2), maxval=100.0)
        newest = jnp.full((batch, 1), slots - 1, jnp.int32)
        return query, *new, *stores, slot, newest, order, jnp.cos(angles), jnp.sin(angles)

    return Case(
        "decode_attention",
        f"B{batch} C{slots}",
        sample,
        call,
        flops=4.0 * batch * N * H * slots,
        bytes=batch * slots * (2 * K * H * 2 + 4) + 2.0 * batch * (N + 3 * K) * H * 2,
    )


CASES = tuple(case(batch, slots) for batch, slots in ((1, 8192), (1, RING), (8, RING)))
