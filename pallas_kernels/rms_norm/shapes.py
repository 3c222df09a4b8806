"""Shapes of `rms_norm`: the one row of a decoded token, 3B to 72B, bfloat16."""

from typing import Any

import jax
import jax.numpy as jnp

from pallas_kernels.rms_norm.api import rms_norm
from pallas_kernels.shapes import Case


def call(implementation: Any, *arrays: jax.Array) -> Any:
    return rms_norm(*arrays, eps=1e-6, implementation=implementation)


def case(width: int) -> Case:
    def sample(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        one, two = jax.random.split(key)
        return jax.random.normal(one, (1, 1, width), jnp.bfloat16), jax.random.normal(two, (width,), jnp.bfloat16)

    return Case("rms_norm", f"D{width}", sample, call, flops=4.0 * width, bytes=6.0 * width)


CASES = tuple(case(width) for width in (2048, 3584, 8192))
