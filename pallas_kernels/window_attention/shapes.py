"""Shapes of `window_attention`: the vision tower of Qwen2.5-VL (16 heads of 80), bfloat16."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from pallas_kernels.shapes import Case
from pallas_kernels.window_attention.api import window_attention

N, H = 16, 80


def sample(key: jax.Array, *, patches: int) -> tuple[jax.Array, ...]:
    return tuple(jax.random.normal(k, (patches, N, H), jnp.bfloat16) for k in jax.random.split(key, 3))


def attend(implementation: Any, *arrays: jax.Array, segments: tuple[int, ...]) -> jax.Array:
    return window_attention(*arrays, segments=segments, scale=H**-0.5, implementation=implementation)


def case(name: str, segments: tuple[int, ...]) -> Case:
    patches = sum(segments)
    return Case(
        "window_attention",
        name,
        functools.partial(sample, patches=patches),
        functools.partial(attend, segments=segments),
        flops=4 * N * H * sum(s * s for s in segments),
        bytes=4 * patches * N * H * 2,
    )


# 560 x 1008 pixels are 40 x 72 patches of 14: windows of 8 x 8. 532 x 980 are 38 x 70: its last row and column are ragged.
RAGGED = (*(*(64,) * 8, 48) * 4, *(48,) * 8, 36)
CASES = (
    case("560x1008 windows", (64,) * 45),
    case("532x980 windows", RAGGED),
    case("560x1008 full", (2880,)),
    case("4 grids full", (1024,) * 4),
)
