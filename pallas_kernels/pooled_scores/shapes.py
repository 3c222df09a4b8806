"""Shapes of `pooled_scores`: the last 64 queries of a clip over a 7B model's cache, bfloat16."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from pallas_kernels.cache_attention import shapes as cache
from pallas_kernels.pooled_scores.api import pooled_scores
from pallas_kernels.shapes import Case

N, K, H = cache.N, cache.K, cache.H


def sample(key: jax.Array, *, tokens: int, slots: int, lse: bool) -> tuple[jax.Array, ...]:
    query, keys, _, query_index, kv_index = cache.sample(key, batch=1, tokens=tokens, slots=slots)
    known = (jnp.full((1, N, tokens), jnp.log(slots), jnp.float32),) if lse else ()
    return query, keys, query_index, kv_index, *known


def pool(implementation: Any, *arrays: jax.Array) -> jax.Array:
    lse = arrays[4] if len(arrays) == 5 else None
    return pooled_scores(*arrays[:4], lse=lse, scale=H**-0.5, implementation=implementation)


def case(tokens: int, slots: int, *, lse: bool) -> Case:
    passes = 1 if lse else 2
    return Case(
        "pooled_scores",
        f"R{tokens} C{slots}" + " lse" * lse,
        functools.partial(sample, tokens=tokens, slots=slots, lse=lse),
        pool,
        flops=2 * passes * N * H * tokens * slots,
        bytes=passes * slots * K * H * 2 + slots * K * 4 + tokens * N * H * 2,
    )


CASES = (case(64, 8192, lse=True), case(64, 8192, lse=False), case(64, cache.RING, lse=True))
