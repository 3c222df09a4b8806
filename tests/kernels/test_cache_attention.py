"""Attention over unordered slots: implementations agree, and only orders decide who sees whom."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels.cache_attention import cache_attention, xla

# B, T, C, N, K, H
SHAPES = {
    "one_token": (1, 1, 37, 6, 2, 16),
    "streams": (3, 1, 20, 4, 4, 8),
    "chunk": (2, 13, 50, 6, 2, 16),
    "one_key_head": (1, 5, 9, 7, 1, 8),
    "long_chunk": (2, 300, 330, 4, 2, 8),
}


def inputs(name, dtype=jnp.float32, seed=0):
    """The last T of an unordered cache's tokens are the queries; a third of the slots is empty, one query row is padding."""
    b, t, c, n, k, h = SHAPES[name]
    rng = np.random.default_rng(seed)
    query, keys, values = (jnp.asarray(rng.standard_normal(s), dtype) for s in ((b, t, n, h), (b, k, c, h), (b, k, c, h)))
    used = max(t, c * 2 // 3)
    order = np.full((b, c), -1, np.int32)
    for stream in order:
        stream[rng.permutation(c)[:used]] = rng.permutation(used)
    query_order = np.tile(np.arange(used - t, used, dtype=np.int32), (b, 1))
    if t > 1:
        query_order[-1, 1] = -1
    return query, keys, values, jnp.asarray(query_order), jnp.asarray(order)


def run(arrays, implementation, scale=0.3):
    def call(*a):
        return cache_attention(*a, scale=scale, implementation=implementation)

    return (call if implementation == "reference" else jax.jit(call))(*arrays)


@pytest.fixture(params=["reference", "xla", "blocked"])
def implementation(request, monkeypatch):
    if request.param == "blocked":
        monkeypatch.setattr(xla, "BLOCK", 4)
        monkeypatch.setattr(xla, "DENSE_SCORES", 1)
        return "xla"
    return request.param


def by_hand(query, keys, values, query_order, slot_order, scale):
    """One query at a time, over the slots it sees, in float64."""
    query, keys, values = (np.asarray(x, np.float64) for x in (query, keys, values))
    out = np.zeros(query.shape)
    for b, t, n in np.ndindex(query.shape[:3]):
        seen = (slot_order[b] >= 0) & (slot_order[b] <= query_order[b, t])
        if seen.any():
            head = n * keys.shape[1] // query.shape[2]
            score = np.exp(scale * keys[b, head][seen] @ query[b, t, n])
            out[b, t, n] = score / score.sum() @ values[b, head][seen]
    return out


@pytest.mark.parametrize("name", ["one_token", "streams", "chunk", "one_key_head"])
def test_equals_the_definition(name, implementation):
    arrays = inputs(name)
    expected = by_hand(*map(np.asarray, arrays), 0.3)
    np.testing.assert_allclose(run(arrays, implementation), expected, atol=2e-6)


@pytest.mark.parametrize("name", SHAPES)
def test_slot_order_means_nothing(name, implementation):
    query, keys, values, query_order, slot_order = inputs(name)
    shuffle = np.random.default_rng(1).permutation(keys.shape[2])
    moved = query, keys[:, :, shuffle], values[:, :, shuffle], query_order, slot_order[:, shuffle]
    before = run((query, keys, values, query_order, slot_order), implementation)
    np.testing.assert_allclose(run(moved, implementation), before, atol=1e-6)


@pytest.mark.parametrize("name", ["one_token", "chunk"])
def test_empty_slots_mean_nothing(name, implementation):
    query, keys, values, query_order, slot_order = inputs(name)
    empty = (slot_order < 0)[:, None, :, None]
    assert empty.any()
    rubbish = query, jnp.where(empty, 1e4, keys), jnp.where(empty, -1e4, values), query_order, slot_order
    before = run((query, keys, values, query_order, slot_order), implementation)
    np.testing.assert_array_equal(run(rubbish, implementation), before)


def test_rows_that_see_nothing_are_zero(implementation):
    query, keys, values, query_order, slot_order = inputs("chunk")
    out = run((query, keys, values, query_order, slot_order), implementation)
    assert (np.asarray(query_order) == -1).sum() == 1
    np.testing.assert_array_equal(out[-1, 1], 0)
    nothing = run((query, keys, values, query_order, jnp.full_like(slot_order, -1)), implementation)
    np.testing.assert_array_equal(nothing, 0)


def test_later_tokens_are_not_seen(implementation):
    query, keys, values, query_order, slot_order = inputs("chunk")
    later = (slot_order > query_order[:, :1])[:, None, :, None]
    assert later.any()
    out = run((query, jnp.where(later, keys + 1, keys), jnp.where(later, values + 1, values), query_order, slot_order), "xla")
    before = run((query, keys, values, query_order, slot_order), implementation)
    np.testing.assert_allclose(out[:, 0], before[:, 0], atol=1e-6)
    assert np.abs(out[0, -1] - before[0, -1]).max() > 1e-2


def test_large_scores_do_not_overflow(implementation):
    query, keys, values, query_order, slot_order = inputs("chunk")
    out = run((1e3 * query, 1e3 * keys, values, query_order, slot_order), implementation)
    assert np.isfinite(out).all()


@pytest.mark.parametrize("name", ["streams", "chunk"])
def test_bfloat16(name, implementation):
    exact = run(inputs(name), "reference")
    rounded = run(inputs(name, jnp.bfloat16), implementation)
    assert rounded.dtype == jnp.bfloat16
    np.testing.assert_allclose(rounded.astype(jnp.float32), exact, atol=0.03)


def test_gradients_agree():
    def loss(implementation):
        return jax.grad(lambda q, k, v, *o: (run((q, k, v, *o), implementation) ** 2).sum(), argnums=(0, 1, 2))

    arrays = inputs("chunk")
    for ours, expected in zip(loss("xla")(*arrays), loss("reference")(*arrays), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_long_prefills_never_hold_all_scores():
    """7B at 720p: 28 heads x 768 queries x 13,335 slots would be 1.1 GB of scores; blocks of 128 queries are 191 MB."""
    b, t, c, n, k, h = 1, 768, 13_335, 28, 4, 128
    f = jax.jit(lambda *a: cache_attention(*a, scale=0.1))
    shapes = [(b, t, n, h), (b, k, c, h), (b, k, c, h)]
    abstract = [jax.ShapeDtypeStruct(s, jnp.bfloat16) for s in shapes]
    abstract += [jax.ShapeDtypeStruct(s, jnp.int32) for s in ((b, t), (b, c))]
    assert f.lower(*abstract).compile().memory_analysis().temp_size_in_bytes < 800e6


@pytest.mark.parametrize("name", ["mosaic_gpu", "mosaic_tpu", "interpret"])
def test_a_named_kernel_never_falls_back(name):
    with pytest.raises(NotImplementedError, match=f"cache_attention.*{name}"):
        run(inputs("one_token"), name)
    with pytest.raises(ValueError, match="triton"):
        run(inputs("one_token"), "triton")
