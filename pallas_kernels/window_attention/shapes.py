"""Shapes of `window_attention`: the vision towers of Qwen2.5-VL (16 heads of 80) and Qwen3-VL (of 72), bfloat16."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from pallas_kernels.shapes import Case
from pallas_kernels.window_attention.api import window_attention

N, H, QWEN3 = 16, 80, 72


def sample(key: jax.Array, *, patches: int, head: int) -> tuple[jax.Array, ...]:
    return tuple(jax.random.normal(k, (patches, N, head), jnp.bfloat16) for k in jax.random.split(key, 3))


def attend(implementation: Any, *arrays: jax.Array, segments: tuple[int, ...]) -> jax.Array:
    return window_attention(*arrays, segments=segments, scale=arrays[0].shape[-1] ** -0.5, implementation=implementation)


def case(name: str, segments: tuple[int, ...], head: int = H) -> Case:
    patches = sum(segments)
    return Case(
        "window_attention",
        name,
        functools.partial(sample, patches=patches, head=head),
        functools.partial(attend, segments=segments),
        flops=4 * N * head * sum(s * s for s in segments),
        bytes=4 * patches * N * head * 2,
    )


# 560 x 1008 pixels are 40 x 72 patches of 14: windows of 8 x 8. 532 x 980 are 38 x 70: its last row and column are ragged.
RAGGED = (*(*(64,) * 8, 48) * 4, *(48,) * 8, 36)
CASES = (
    case("560x1008 windows", (64,) * 45),
    case("532x980 windows", RAGGED),
    case("560x1008 full", (2880,)),
    case("4 grids full", (1024,) * 4),
    case("640x1152 full, heads of 72", (2880,), QWEN3),
)
