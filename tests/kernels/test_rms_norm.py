"""Normalisation by the root mean square: one suite for all implementations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels.rms_norm import reference
from svlm_jax.models.layers import rms_norm
from tests.kernels.implementations import implementations, np_tree

EPS = 1e-6


@pytest.fixture(params=implementations("rms_norm", "xla", "gpu interpreter", "mosaic_gpu"))
def implementation(request):
    return request.param


def arrays(dtype, *shape, scale=1.0):
    one, two = jax.random.split(jax.random.key(0))
    return (scale * jax.random.normal(one, shape)).astype(dtype), jax.random.normal(two, shape[-1:], dtype)


@pytest.mark.parametrize(("shape", "scale"), [((1, 1, 512), 1.0), ((3, 768), 100.0), ((1, 256), 1e-4)])
def test_equals_the_reference(implementation, shape, scale):
    x, weight = arrays(implementation.dtype, *shape, scale=scale)
    expected = np_tree(reference.rms_norm(x, weight, eps=EPS))
    np.testing.assert_allclose(implementation(x, weight, eps=EPS), expected, rtol=4 * implementation.atol, atol=1e-6)


def test_of_a_layer_takes_a_gradient():
    x, weight = arrays(jnp.float32, 1, 1, 512)
    ours, expected = (
        jax.grad(lambda x, w, f=f: jnp.sum(jnp.sin(f(x, w))), (0, 1))(x, weight)
        for f in (lambda x, w: rms_norm(x, w, EPS), lambda x, w: reference.rms_norm(x, w, eps=EPS))
    )
    for got, wanted in zip(ours, expected, strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-5)
