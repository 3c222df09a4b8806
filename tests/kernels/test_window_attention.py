"""Attention inside segments: one suite for all implementations; nothing leaks between segments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels.window_attention import window_attention, xla
from tests.kernels.implementations import Implementation, implementations, np_tree, race_found

N, H, SCALE = 2, 80, 0.15
SEGMENTS = {
    "windows": (64,) * 9,
    "ragged": (64, 64, 48, 64, 64, 48, 36),
    "one grid": (300,),
    "two grids": (240, 240),
    "uneven": (1, 290, 5, 1, 300),
    "tiny": (20, 30),
}


def arrays(name, dtype, head=H):
    rng = np.random.default_rng(0)
    return tuple(jnp.asarray(rng.standard_normal((sum(SEGMENTS[name]), N, head)), dtype) for _ in range(3))


def expected(tensors, name):
    float32 = (x.astype(jnp.float32) for x in tensors)
    return np_tree(window_attention(*float32, segments=SEGMENTS[name], scale=SCALE, implementation="reference"))


def check(implementation, name, head=H):
    tensors = arrays(name, implementation.dtype, head)
    out = implementation(*tensors, segments=SEGMENTS[name], scale=SCALE)
    np.testing.assert_allclose(out, expected(tensors, name), atol=implementation.atol)


@pytest.fixture(params=implementations("window_attention"))
def implementation(request):
    return request.param


@pytest.mark.parametrize("name", ["ragged", "uneven"])
def test_the_reference_is_the_definition(name):
    query, keys, values = arrays(name, jnp.float32)
    want, start = [], 0
    for length in SEGMENTS[name]:
        q, k, v = (np.asarray(x[start : start + length], np.float64) for x in (query, keys, values))
        weight = np.exp(SCALE * np.einsum("pnh,qnh->npq", q, k))
        want.append(np.einsum("npq,qnh->pnh", weight / weight.sum(-1, keepdims=True), v))
        start += length
    np.testing.assert_allclose(expected((query, keys, values), name), np.concatenate(want), atol=5e-6)


@pytest.mark.parametrize("name", [name for name in SEGMENTS if name != "tiny"])
def test_segments(name, implementation):
    check(implementation, name)


def test_heads_of_qwen3_vl(implementation):
    check(implementation, "tiny", head=72)


def test_nothing_leaks_between_segments(implementation):
    query, keys, values = arrays("ragged", implementation.dtype)
    options = {"segments": SEGMENTS["ragged"], "scale": SCALE}
    before = implementation(query, keys, values, **options)
    start, end = 64, 128
    after = implementation(query, keys.at[start:end].add(9), values.at[start:end].add(9), **options)
    changed = np.abs(after - before).max((1, 2)) > 0
    np.testing.assert_array_equal(np.flatnonzero(changed), np.arange(start, end))


def test_bit_equal_twice(implementation):
    options = {"segments": SEGMENTS["ragged"], "scale": SCALE}
    first, second = (implementation(*arrays("ragged", implementation.dtype), **options) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("implementation", implementations("window_attention", "races", "gpu races"))
def test_under_the_race_detector(implementation):
    check(implementation, "tiny")
    assert not race_found(implementation.name)


@pytest.mark.parametrize("name", ["xla", "interpret"])
def test_bfloat16(name):
    tensors = arrays("ragged", jnp.bfloat16)
    out = window_attention(*tensors, segments=SEGMENTS["ragged"], scale=SCALE, implementation=name)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(out.astype(jnp.float32), expected(tensors, "ragged"), atol=8e-3)


@pytest.mark.parametrize("name", ["xla", "auto", "interpret"])
def test_gradients(name):
    tensors = arrays("tiny", jnp.float32)

    def gradient(implementation):
        def total(*tensors):
            return (window_attention(*tensors, segments=(20, 30), scale=SCALE, implementation=implementation) ** 2).sum()

        return jax.jit(jax.grad(total, argnums=(0, 1, 2)))(*tensors)

    for ours, want in zip(gradient(name), gradient("reference"), strict=True):
        np.testing.assert_allclose(ours, want, atol=5e-5)


@pytest.mark.parametrize("name", ["one grid", "uneven"])
def test_large_segments_in_blocks_of_queries(name, monkeypatch):
    monkeypatch.setattr(xla, "BLOCK", 50)
    monkeypatch.setattr(xla, "DENSE_SCORES", 1)
    out = jax.jit(lambda *a: window_attention(*a, segments=SEGMENTS[name], scale=SCALE, implementation="xla"))
    tensors = arrays(name, jnp.float32)
    np.testing.assert_allclose(out(*tensors), expected(tensors, name), atol=5e-6)


def test_segments_must_cover_the_patches():
    with pytest.raises(ValueError, match="sum to the 300 patches"):
        Implementation("window_attention", "xla")(*arrays("one grid", jnp.float32), segments=(8, 8), scale=1.0)


def test_large_grids_never_hold_all_scores():
    """A 720p grid of Qwen2.5-VL: 16 heads x 2,880² scores are 531 MB of float32."""
    patches = jax.ShapeDtypeStruct((2880, 16, 80), jnp.bfloat16)
    f = jax.jit(lambda *a: window_attention(*a, segments=(2880,), scale=0.1))
    assert f.lower(patches, patches, patches).compile().memory_analysis().temp_size_in_bytes < 250e6
