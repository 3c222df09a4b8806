"""Low-rank adapters beside their weights: the sum of the two in float32, and what bfloat16 leaves of a small one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from svlm_jax.models.adapted import Adapted
from svlm_jax.models.layers import Linear
from svlm_jax.models.quant import quantize

WIDTH, RANK, SCALE = 256, 4, 2.0


def linear(weight) -> Linear:
    graph, _ = nnx.split(Linear(WIDTH, WIDTH, bias=False, dtype=jnp.float32, rngs=nnx.Rngs(0)))
    return nnx.merge(graph, {"weight": weight})


def arrays(dtype, size: float) -> tuple[jax.Array, ...]:
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = ((2048, WIDTH), (WIDTH, WIDTH), (WIDTH, RANK), (RANK, WIDTH))
    scales = (1.0, WIDTH**-0.5, WIDTH**-0.5, size)
    return tuple((scale * jax.random.normal(k, s)).astype(dtype) for k, s, scale in zip(keys, shapes, scales, strict=True))


def test_it_is_the_sum_of_the_matrices_in_float32():
    x, weight, down, up = arrays(jnp.float32, 1.0)
    y = linear(Adapted(weight, down, up, SCALE))(x)
    np.testing.assert_allclose(y, np.asarray(x) @ (np.asarray(weight) + SCALE * np.asarray(down) @ np.asarray(up)), atol=1e-4)


def test_it_may_stand_beside_a_quantised_weight():
    x, weight, down, up = arrays(jnp.float32, 1.0)
    whole = quantize(weight, "int8", "matrix")
    change = SCALE * (x @ down) @ up
    np.testing.assert_allclose(linear(Adapted(whole, down, up, SCALE))(x), linear(whole)(x) + change, atol=1e-4)


@pytest.mark.parametrize(("kind", "least", "most"), [("beside", 0.9, 1.1), ("added in", 0.0, 0.3)])
def test_a_small_change_outlives_bfloat16_only_beside_its_weight(kind, least, most):
    """As after a first step of Adam: far below the grid of the weight's numbers."""
    x, weight, down, up = arrays(jnp.bfloat16, 1e-4)
    wide = [np.asarray(part, np.float32) for part in (x, down, up)]
    change = SCALE * wide[0] @ wide[1] @ wide[2]
    merged = (weight.astype(jnp.float32) + SCALE * wide[1] @ wide[2]).astype(jnp.bfloat16)
    y = linear(Adapted(weight, down, up, SCALE) if kind == "beside" else merged)(x)
    arrived = np.asarray(y, np.float32) - np.asarray(linear(weight)(x), np.float32)
    share = float(np.vdot(arrived, change) / np.vdot(change, change))
    assert least < share < most, share
