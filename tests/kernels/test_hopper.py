"""What only the kernels for Hopper have: two warpgroups that rotate a tile together, parts of a list, races that are seen."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels import compat
from pallas_kernels.cache_attention import cache_attention
from tests.kernels.implementations import race_found

pytestmark = pytest.mark.skipif(bool(compat.mosaic_gpu_missing()), reason=str(compat.mosaic_gpu_missing()))

B, T, C, N, K, H = 1, 12, 136, 8, 1, 64


def arrays():
    rng = np.random.default_rng(0)
    shapes = (B, T, N, H), (B, K, C, H), (B, K, C, H)
    slots = jnp.asarray(rng.permutation(C)[None], jnp.int32)
    angles = rng.uniform(0, 6, (B, C, H // 2))
    rope = tuple(jnp.asarray(f(angles), jnp.float32) for f in (np.cos, np.sin))
    queries = jnp.arange(C - T, C, dtype=jnp.int32)[None]
    return *(jnp.asarray(rng.standard_normal(s), jnp.bfloat16) for s in shapes), queries, slots, rope


def in_simulator():
    from pallas_kernels.cache_attention import mosaic_gpu

    interpret = compat.gpu_interpreter(detect_races=True)
    run = jax.jit(functools.partial(mosaic_gpu.cache_attention, scale=0.3, return_lse=True, interpret=interpret))
    return jax.block_until_ready(run(*arrays()))


def test_two_warpgroups_rotate_a_tile_together():
    """96 rows and 136 slots: both warpgroups work, and the second block begins early. Waiting in a circle would hang."""
    out, lse = in_simulator()
    assert not race_found("gpu races")
    *tensors, rope = arrays()
    want, want_lse = cache_attention(*tensors, rope=rope, scale=0.3, return_lse=True, implementation="reference")
    np.testing.assert_allclose(out.astype(jnp.float32), want.astype(jnp.float32), atol=0.02)
    np.testing.assert_allclose(lse, want_lse, atol=1e-3)


def test_reading_queries_before_they_have_come_is_a_race(monkeypatch):
    """The same kernel without its first wait, that for the queries: the simulator sees it."""
    from jax.experimental.pallas import mosaic_gpu as plgpu

    from pallas_kernels.hopper import forward

    wait, waits = plgpu.barrier_wait, []

    def all_but_the_first(barrier):
        waits.append(barrier)
        if len(waits) > 1:
            wait(barrier)

    forward.attend.clear_cache()
    monkeypatch.setattr(plgpu, "barrier_wait", all_but_the_first)
    try:
        in_simulator()
        found = race_found("gpu races")
    except jax.errors.JaxRuntimeError as error:
        found = "race" in str(error).lower()
    finally:
        forward.attend.clear_cache()
    assert len(waits) > 1 and found
