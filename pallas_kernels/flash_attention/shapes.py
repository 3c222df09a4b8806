"""Shapes of `flash_attention`: training of Qwen2.5-VL-7B on 4k, 8k and 32k tokens, one sequence or several packed, bfloat16."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from pallas_kernels.flash_attention.api import flash_attention
from pallas_kernels.shapes import Case

N, K, H = 28, 4, 128


def sample(key: jax.Array, *, tokens: int, segments: int) -> tuple[Any, ...]:
    keys = jax.random.split(key, 3)
    heads = (N, K, K)
    qkv = (jax.random.normal(k, (1, tokens, n, H), jnp.bfloat16) for k, n in zip(keys, heads, strict=True))
    return *qkv, None if segments == 1 else jnp.arange(tokens, dtype=jnp.int32)[None] * segments // tokens


def attend(implementation: Any, *arrays: Any, **options: Any) -> jax.Array:
    query, keys, values, segment_ids = arrays
    options |= {"segment_ids": segment_ids, "scale": H**-0.5, "implementation": implementation}
    return flash_attention(query, keys, values, **options)


def gradients(implementation: Any, *arrays: Any, **options: Any) -> tuple[jax.Array, ...]:
    *qkv, segment_ids = arrays

    def total(*qkv: jax.Array) -> jax.Array:
        return attend(implementation, *qkv, segment_ids, **options).astype(jnp.float32).sum()

    return jax.grad(total, argnums=(0, 1, 2))(*qkv)


def case(tokens: int, segments: int, *, backward: bool, **options: Any) -> Case:
    name = f"T{tokens} segments{segments}" + "".join(f" {k}{v}" for k, v in options.items()) + " f+b" * backward
    length = tokens / segments
    window = min(options.get("window", length) + options.get("sink", 0), length)
    pairs = segments * (length * window - window**2 / 2)
    bytes_once = 2 * tokens * H * (2 * N + 2 * K)
    return Case(
        "flash_attention",
        name,
        functools.partial(sample, tokens=tokens, segments=segments),
        functools.partial(gradients if backward else attend, **options),
        flops=4 * N * H * pairs * (3.5 if backward else 1),
        bytes=bytes_once * (3 if backward else 1),
    )


CASES = tuple(
    case(tokens, segments, backward=backward, **options)
    for tokens, segments, options in (
        (4096, 4, {}),
        (8192, 1, {}),
        (8192, 1, {"sink": 512, "window": 2048}),
        (32768, 8, {}),
    )
    for backward in (False, True)
)
