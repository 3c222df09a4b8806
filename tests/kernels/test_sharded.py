"""Kernels on eight devices say what they say on one, by the TPU kernel interpreted and by XLA, gradients included."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels.cache_attention import cache_attention
from pallas_kernels.flash_attention import flash_attention
from pallas_kernels.pooled_scores import pooled_scores
from pallas_kernels.sharded import sharded

B, T, C, N, K, H = 4, 3, 40, 8, 2, 16


@pytest.fixture
def mesh():
    return jax.make_mesh((4, 2), ("data", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 2)


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape, jnp.float32)


def orders():
    slots = jnp.stack([jax.random.permutation(jax.random.key(i), C) for i in range(B)]).astype(jnp.int32)
    return jnp.broadcast_to(jnp.arange(C - T, C, dtype=jnp.int32), (B, T)), slots


CACHE = normal(0, B, T, N, H), normal(1, B, K, C, H), normal(2, B, K, C, H)


@pytest.mark.parametrize("implementation", ["xla", "interpret"])
def test_cache_attention(mesh, implementation):
    rope = tuple(f(normal(3, B, C, H // 2)) for f in (jnp.cos, jnp.sin))
    call = functools.partial(
        cache_attention, *CACHE, *orders(), scale=0.3, rope=rope, return_lse=True, implementation=implementation
    )  # fmt: skip
    cut = functools.partial(sharded(cache_attention, mesh, batch="data", heads="tensor"), *call.args, **call.keywords)
    for ours, expected in zip(jax.jit(cut)(), jax.jit(call)(), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-6)
        assert len(ours.sharding.device_set) == 8 and not ours.is_fully_replicated


def test_pooled_scores(mesh):
    query, keys, _ = CACHE
    call = functools.partial(pooled_scores, query, keys, *orders(), scale=0.3)
    cut = functools.partial(sharded(pooled_scores, mesh, batch="data", heads="tensor"), *call.args, **call.keywords)
    np.testing.assert_allclose(jax.jit(cut)(), call(), atol=1e-6)


def test_gradients_of_flash_attention(mesh):
    query, keys, values = normal(0, B, C, N, H), normal(1, B, C, K, H), normal(2, B, C, K, H)
    segments = jnp.broadcast_to(jnp.arange(C, dtype=jnp.int32) // 15, (B, C))

    def loss(attend):
        def total(*qkv):
            return (attend(*qkv, scale=0.3, segment_ids=segments, sink=2, window=6, implementation="xla") ** 2).sum()

        return jax.jit(jax.grad(total, argnums=(0, 1, 2)))

    cut = loss(sharded(flash_attention, mesh, batch="data", heads="tensor"))
    for ours, expected in zip(cut(query, keys, values), loss(flash_attention)(query, keys, values), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-5)
    assert "all-reduce" not in cut.lower(query, keys, values).compile().as_text()


def test_what_does_not_divide_is_refused(mesh):
    query, keys, values = CACHE
    cut = sharded(cache_attention, mesh, heads="data")
    with pytest.raises(ValueError, match=r"the 2 heads of keys do not divide over the 4 devices of axis 'data'"):
        cut(query, keys, values, *orders(), scale=0.3)
