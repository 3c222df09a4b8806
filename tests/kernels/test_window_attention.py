"""Attention inside segments: implementations agree, and nothing leaks between segments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels.window_attention import window_attention, xla

SEGMENTS = {
    "equal": (8, 8, 8),
    "ragged": (16, 8, 4, 16, 2),
    "one": (30,),
    "two_grids": (24, 24),
    "single_patches": (1, 1, 5),
}


def inputs(name, dtype=jnp.float32, heads=3, dim=8):
    rng = np.random.default_rng(0)
    return tuple(jnp.asarray(rng.standard_normal((sum(SEGMENTS[name]), heads, dim)), dtype) for _ in range(3))


def run(arrays, name, implementation):
    def call(*a):
        return window_attention(*a, segments=SEGMENTS[name], scale=0.4, implementation=implementation)

    return (call if implementation == "reference" else jax.jit(call))(*arrays)


@pytest.fixture(params=["reference", "xla", "blocked"])
def implementation(request, monkeypatch):
    if request.param == "blocked":
        monkeypatch.setattr(xla, "BLOCK", 5)
        monkeypatch.setattr(xla, "DENSE_SCORES", 1)
        return "xla"
    return request.param


@pytest.mark.parametrize("name", SEGMENTS)
def test_equals_the_definition(name, implementation):
    query, keys, values = inputs(name)
    expected, start = [], 0
    for length in SEGMENTS[name]:
        q, k, v = (np.asarray(x[start : start + length], np.float64) for x in (query, keys, values))
        weight = np.exp(0.4 * np.einsum("pnh,qnh->npq", q, k))
        expected.append(np.einsum("npq,qnh->pnh", weight / weight.sum(-1, keepdims=True), v))
        start += length
    np.testing.assert_allclose(run((query, keys, values), name, implementation), np.concatenate(expected), atol=2e-6)


def test_nothing_leaks_between_segments(implementation):
    query, keys, values = inputs("ragged")
    before = run((query, keys, values), "ragged", implementation)
    start, end = 16, 24
    after = run((query, keys.at[start:end].add(9.0), values.at[start:end].add(9.0)), "ragged", implementation)
    changed = np.abs(np.asarray(after - before)).max((1, 2)) > 0
    np.testing.assert_array_equal(np.flatnonzero(changed), np.arange(start, end))


@pytest.mark.parametrize("name", ["equal", "ragged"])
def test_bfloat16(name, implementation):
    rounded = run(inputs(name, jnp.bfloat16), name, implementation)
    assert rounded.dtype == jnp.bfloat16
    np.testing.assert_allclose(rounded.astype(jnp.float32), run(inputs(name), name, "reference"), atol=0.03)


def test_segments_must_cover_the_patches():
    with pytest.raises(ValueError, match="sum to the 30 patches"):
        window_attention(*inputs("one"), segments=(8, 8), scale=1.0)


def test_large_grids_never_hold_all_scores():
    """A 720p grid of Qwen2.5-VL: 16 heads x 2,880² scores are 531 MB of float32."""
    patches = jax.ShapeDtypeStruct((2880, 16, 80), jnp.bfloat16)
    f = jax.jit(lambda *a: window_attention(*a, segments=(2880,), scale=0.1))
    assert f.lower(patches, patches, patches).compile().memory_analysis().temp_size_in_bytes < 250e6


@pytest.mark.parametrize("name", ["mosaic_gpu", "mosaic_tpu", "interpret"])
def test_a_named_kernel_never_falls_back(name):
    with pytest.raises(NotImplementedError, match=f"window_attention.*{name}"):
        run(inputs("equal"), "equal", name)
