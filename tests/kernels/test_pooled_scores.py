"""How much the last queries look at each slot: one suite for all implementations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels.cache_attention import cache_attention
from pallas_kernels.pooled_scores import pooled_scores
from tests.kernels.implementations import SIMULATORS, implementations, np_tree, race_found
from tests.kernels.test_cache_attention import angles, arrays, ring

SCALE = 0.2


@pytest.fixture(params=implementations("pooled_scores"))
def implementation(request):
    return request.param


def tensors(shape, dtype):
    query, keys, _ = arrays(shape, dtype)
    return query, keys


def expected(query, keys, orders, **options):
    return np_tree(pooled_scores(query, keys, *orders, scale=SCALE, implementation="reference", **options))


def check(implementation, shape, kind):
    query, keys = tensors(shape, implementation.dtype)
    want = expected(query, keys, ring(kind, shape))
    np.testing.assert_allclose(implementation(query, keys, *ring(kind, shape), scale=SCALE), want, rtol=2e-3, atol=1e-6)


def test_the_reference_is_the_mean_of_softmax_weights():
    query, keys = (np.asarray(x, np.float64) for x in tensors("turn", jnp.float32))
    query_index, kv_index = (np.asarray(x) for x in ring("third empty", "turn"))
    want, real = np.zeros((1, 1, keys.shape[2])), 0
    for t in np.flatnonzero(query_index[0] >= 0):
        seen = (kv_index[0] >= 0) & (kv_index[0] <= query_index[0, t])
        for n in range(query.shape[2]):
            weight = np.exp(SCALE * keys[0, 0, seen] @ query[0, t, n])
            want[0, 0, seen] += weight / weight.sum()
            real += 1
    assert real == 49 * 7  # one of the fifty queries is padding
    have = expected(*tensors("turn", jnp.float32), ring("third empty", "turn"))
    np.testing.assert_allclose(have, want / real, rtol=1e-4)


@pytest.mark.parametrize("kind", ["empty", "one slot", "third empty", "full", "past full"])
@pytest.mark.parametrize("shape", ["word", "turn"])
def test_rings(shape, kind, implementation):
    check(implementation, shape, kind)


@pytest.mark.slow
def test_large_shapes(implementation):
    check(implementation, "wide", "third empty")


def test_weights_sum_to_one(implementation):
    out = implementation(*tensors("turn", implementation.dtype), *ring("third empty", "turn"), scale=SCALE)
    np.testing.assert_allclose(out.sum(-1), 1, atol=2e-3)
    nothing = implementation(*tensors("turn", implementation.dtype), *ring("empty", "turn"), scale=SCALE)
    np.testing.assert_array_equal(nothing, 0)


def test_a_known_log_sum_exp_saves_a_pass(implementation):
    query, keys = tensors("turn", implementation.dtype)
    orders = ring("third empty", "turn")
    _, lse = cache_attention(query, keys, keys, *orders, scale=SCALE, return_lse=True, implementation="xla")
    call = jax.jit(lambda lse: pooled_scores(query, keys, *orders, lse=lse, scale=SCALE, implementation=implementation.name))
    if implementation.name in SIMULATORS:
        have = implementation(query, keys, *orders, None, lse, scale=SCALE)
    else:
        have = call(lse)
    np.testing.assert_allclose(have, expected(query, keys, orders), rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("name", ["xla", "interpret"])
def test_rope_at_read(name):
    query, keys = tensors("turn", jnp.float32)
    orders, rope = ring("third empty", "turn"), angles("turn")
    have = jax.jit(lambda rope: pooled_scores(query, keys, *orders, rope=rope, scale=SCALE, implementation=name))(rope)
    np.testing.assert_allclose(have, expected(query, keys, orders, rope=rope), rtol=1e-3, atol=1e-6)
    assert np.abs(have - expected(query, keys, orders)).max() > 1e-3


def test_bit_equal_twice(implementation):
    call = (*tensors("turn", implementation.dtype), *ring("third empty", "turn"))
    np.testing.assert_array_equal(implementation(*call, scale=SCALE), implementation(*call, scale=SCALE))


@pytest.mark.slow
@pytest.mark.parametrize("implementation", implementations("pooled_scores", "races", "gpu races"))
def test_under_the_race_detector(implementation):
    check(implementation, "tiny", "third empty")
    assert not race_found(implementation.name)
