"""Attention over unordered slots: one suite for all implementations; only orders decide who sees whom."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels.cache_attention import cache_attention, merge, xla
from tests.kernels.implementations import SIMULATORS, Implementation, implementations, np_tree, race_found

SCALE = 0.2
# B, T, C, N, K, H. Neither 200 nor 1,000 slots are a multiple of a block.
SHAPES = {
    "word": (2, 1, 200, 4, 2, 64),
    "turn": (1, 50, 200, 7, 1, 64),
    "clip": (1, 799, 1000, 2, 1, 64),
    "wide": (1, 5, 600, 28, 4, 128),
    "tiny": (1, 3, 9, 2, 1, 64),
}


@pytest.fixture(params=implementations("cache_attention"))
def implementation(request):
    return request.param


def arrays(shape, dtype, seed=0):
    b, t, c, n, k, h = SHAPES[shape]
    rng = np.random.default_rng(seed)
    return tuple(jnp.asarray(rng.standard_normal(s), dtype) for s in ((b, t, n, h), (b, k, c, h), (b, k, c, h)))


def ring(kind, shape, seed=0):
    """Orders of the queries, the newest tokens of the ring, and of its slots."""
    b, t, c, *_ = SHAPES[shape]
    rng = np.random.default_rng(seed)
    live = {"empty": 0, "one slot": 1, "third empty": c * 2 // 3}.get(kind, c)
    if kind == "seam":  # written round and round: the newest token lies in the middle, the oldest beside it
        order = np.roll(np.arange(c), c // 2 + 3)
    elif kind == "past full":  # the newest token has taken the place of the oldest
        order = np.r_[c, np.arange(1, c)]
    elif kind == "sink half gone":
        order = np.where(np.isin(np.arange(c), (1, 2, 5)), -1, np.arange(c))
    else:
        order = np.full(c, -1)
        order[rng.permutation(c)[:live]] = rng.permutation(live)
    order = np.tile(order, (b, 1)).astype(np.int32)
    newest = max(int(order.max()), t - 1)
    query_index = np.tile(np.arange(newest - t + 1, newest + 1, dtype=np.int32), (b, 1))
    if kind == "third empty" and t > 1:
        query_index[-1, 1] = -1  # a row of padding
    return jnp.asarray(query_index), jnp.asarray(order)


def angles(shape, seed=1):
    b, _, c, _, _, h = SHAPES[shape]
    turn = np.random.default_rng(seed).uniform(0, 100, (b, c, h // 2)).astype(np.float32)
    return jnp.cos(turn), jnp.sin(turn)


def run(implementation, tensors, orders, rope=None, lanes=None, **options):
    """Output and log-sum-exp."""
    options = {"scale": SCALE, "return_lse": True, **options}
    if rope is None and lanes is None:
        return implementation(*tensors, *orders, **options)
    if implementation.name in SIMULATORS:
        return implementation(*tensors, *orders, rope, lanes, **options)

    def call(rope, lanes, *arrays):
        return cache_attention(*arrays, rope=rope, value_lanes=lanes, implementation=implementation.name, **options)

    return np_tree(jax.jit(call)(rope, lanes, *tensors, *orders))


def expected(tensors, orders, **options):
    """The reference in float32 on the same, perhaps rounded, numbers. Turned keys are rounded like the given ones."""
    query, keys, values = tensors
    options = {"scale": SCALE, "return_lse": True, **options}
    exact = cache_attention(query.astype(jnp.float32), keys, values, *orders, implementation="reference", **options)
    return np_tree(exact)


def check(implementation, shape, orders, rope=None, **options):
    tensors = arrays(shape, implementation.dtype)
    out, lse = run(implementation, tensors, orders, rope, **options)
    want, want_lse = expected(tensors, orders, rope=rope, **options)
    assert np.abs(want).max() > 0.1 or (np.asarray(orders[1]) < 0).all()
    np.testing.assert_allclose(out, want, atol=implementation.atol)
    np.testing.assert_allclose(lse, want_lse, atol=1e-4, rtol=1e-5)


def by_hand(query, keys, values, query_index, kv_index, sink=0, window=10**6):
    """One query at a time, over the slots it sees, in float64."""
    query, keys, values = (np.asarray(x, np.float64) for x in (query, keys, values))
    out, lse = np.zeros(query.shape), np.full((query.shape[0], query.shape[2], query.shape[1]), -1e30)
    for b, t, n in np.ndindex(query.shape[:3]):
        k, q = kv_index[b], query_index[b, t]
        seen = (k >= 0) & (k <= q) & ((k < sink) | (q - k < window))
        if seen.any():
            head = n * keys.shape[1] // query.shape[2]
            score = SCALE * keys[b, head][seen] @ query[b, t, n]
            lse[b, n, t] = np.log(np.exp(score).sum())
            out[b, t, n] = np.exp(score - lse[b, n, t]) @ values[b, head][seen]
    return out, lse


@pytest.mark.parametrize("options", [{}, {"sink": 4, "window": 30}], ids=["causal", "window"])
def test_the_reference_is_the_definition(options):
    tensors, orders = arrays("turn", jnp.float32), ring("third empty", "turn")
    want, want_lse = by_hand(*tensors, *map(np.asarray, orders), **options)
    out, lse = expected(tensors, orders, **options)
    np.testing.assert_allclose(out, want, atol=5e-6)
    np.testing.assert_allclose(lse, want_lse, atol=5e-6, rtol=1e-6)


@pytest.mark.parametrize("kind", ["empty", "one slot", "third empty", "full", "past full"])
@pytest.mark.parametrize("shape", ["word", "turn"])
def test_rings(shape, kind, implementation):
    check(implementation, shape, ring(kind, shape))


@pytest.mark.parametrize("shape", ["clip", "wide"])
def test_large_shapes(shape, implementation):
    if shape == "clip" and implementation.name == "gpu interpreter":
        pytest.skip("takes minutes in the interpreter")
    check(implementation, shape, ring("third empty", shape))


@pytest.mark.parametrize("kind", ["seam", "sink half gone"])
def test_sink_and_window(kind, implementation):
    check(implementation, "turn", ring(kind, "turn"), sink=6, window=100)


def test_rope_at_read(implementation):
    check(implementation, "turn", ring("third empty", "turn"), rope=angles("turn"))


def test_rope_at_read_equals_turned_keys():
    (query, keys, values), orders, (cos, sin) = arrays("turn", jnp.float32), ring("full", "turn"), angles("turn")
    first, second = jnp.split(keys, 2, -1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], -1)
    plain = cache_attention(query, turned, values, *orders, scale=SCALE, implementation="reference")
    fused = cache_attention(query, keys, values, *orders, rope=(cos, sin), scale=SCALE, implementation="reference")
    np.testing.assert_allclose(fused, plain, atol=2e-6)
    unturned = cache_attention(query, keys, values, *orders, scale=SCALE, implementation="reference")
    assert np.abs(fused - unturned).max() > 0.1


@pytest.mark.parametrize("lanes", [(3, 0), (1, 4)], ids=["apart", "one is filling"])
def test_values_are_read_in_their_lanes(lanes, implementation):
    """Values of a pool of four, of which two rows are read where they lie; what a row of filling (lane 4) reads is nobody's."""
    (query, keys, values), orders = arrays("word", implementation.dtype), ring("third empty", "word")
    pool = jnp.concatenate([values + 7, values - 7])
    for row, lane in enumerate(lanes):
        pool = pool.at[lane].set(values[row], mode="drop")
    found = run(implementation, (query, keys, pool), orders, lanes=jnp.asarray(lanes))
    alone = run(implementation, (query, keys, values), orders)
    real = [row for row, lane in enumerate(lanes) if lane < 4]
    for have, want in zip(found, alone, strict=True):
        np.testing.assert_allclose(have[real], want[real], atol=implementation.atol, rtol=1e-6)


def test_slot_order_means_nothing(implementation):
    (query, keys, values), (query_index, kv_index) = arrays("turn", implementation.dtype), ring("third empty", "turn")
    shuffle = np.random.default_rng(1).permutation(keys.shape[2])
    moved = run(implementation, (query, keys[:, :, shuffle], values[:, :, shuffle]), (query_index, kv_index[:, shuffle]))
    before = run(implementation, (query, keys, values), (query_index, kv_index))
    for have, want in zip(moved, before, strict=True):
        np.testing.assert_allclose(have, want, atol=implementation.atol, rtol=1e-6)


def test_empty_slots_mean_nothing(implementation):
    """Neither what lies in them nor their number."""
    (query, keys, values), (query_index, kv_index) = arrays("turn", implementation.dtype), ring("third empty", "turn")
    empty = (kv_index < 0)[:, None, :, None]
    before = run(implementation, (query, keys, values), (query_index, kv_index))
    rubbish = query, jnp.where(empty, 1e4, keys).astype(keys.dtype), jnp.where(empty, -1e4, values).astype(keys.dtype)
    for have, want in zip(run(implementation, rubbish, (query_index, kv_index)), before, strict=True):
        np.testing.assert_array_equal(have, want)
    live = np.flatnonzero(np.asarray(kv_index[0]) >= 0)
    fewer = run(implementation, (query, keys[:, :, live], values[:, :, live]), (query_index, kv_index[:, live]))
    for have, want in zip(fewer, before, strict=True):
        np.testing.assert_allclose(have, want, atol=implementation.atol, rtol=1e-6)


def test_rows_that_see_nothing_are_zero(implementation):
    tensors, (query_index, kv_index) = arrays("turn", implementation.dtype), ring("third empty", "turn")
    out, lse = run(implementation, tensors, (query_index, kv_index))
    np.testing.assert_array_equal(out[-1, 1], 0)
    assert (lse[-1, :, 1] <= -1e29).all() and np.isfinite(lse).all()
    assert np.abs(out[-1, 2]).max() > 0.01


def test_two_parts_of_the_cache_merge_into_the_whole(implementation):
    (query, keys, values), (query_index, kv_index) = arrays("turn", implementation.dtype), ring("third empty", "turn")
    whole = run(implementation, (query, keys, values), (query_index, kv_index))
    cut = 77
    parts = [
        run(implementation, (query, keys[:, :, part], values[:, :, part]), (query_index, kv_index[:, part]))
        for part in (slice(0, cut), slice(cut, None))
    ]
    for have, want in zip(merge(*map(jnp.asarray, (*parts[0], *parts[1]))), whole, strict=True):
        np.testing.assert_allclose(have, want, atol=2 * implementation.atol, rtol=1e-5)
    nothing = jnp.zeros_like(whole[0]), jnp.full_like(whole[1], -1e30)
    for have, want in zip(merge(*map(jnp.asarray, whole), *nothing), whole, strict=True):
        np.testing.assert_array_equal(have, want)


def test_bit_equal_twice(implementation):
    tensors, orders = arrays("turn", implementation.dtype), ring("third empty", "turn")
    first, second = (run(implementation, tensors, orders) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def test_large_scores_do_not_overflow(implementation):
    query, keys, values = arrays("turn", implementation.dtype)
    out, lse = run(implementation, (1e3 * query, 1e3 * keys, values), ring("third empty", "turn"))
    assert np.isfinite(out).all() and np.isfinite(lse).all()


@pytest.mark.parametrize("name", ["xla", "interpret"])
def test_bfloat16(name):
    tensors, orders = arrays("turn", jnp.bfloat16), ring("third empty", "turn")
    out = cache_attention(*tensors, *orders, scale=SCALE, implementation=name)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(out.astype(jnp.float32), expected(tensors, orders)[0], atol=8e-3)


@pytest.mark.slow
@pytest.mark.parametrize("implementation", implementations("cache_attention", "races", "gpu races"))
def test_under_the_race_detector(implementation):
    """On a tiny shape: the simulators are slow."""
    check(implementation, "tiny", ring("third empty", "tiny"))
    assert not race_found(implementation.name)


@pytest.mark.parametrize("name", ["xla", "auto", "interpret"])
def test_gradients(name):
    tensors, orders = arrays("turn", jnp.float32), ring("third empty", "turn")

    def loss(implementation):
        def total(*tensors):
            out = cache_attention(*tensors, *orders, scale=SCALE, sink=3, window=50, implementation=implementation)
            return (out**2).sum()

        return jax.jit(jax.grad(total, argnums=(0, 1, 2)))

    for ours, want in zip(loss(name)(*tensors), loss("reference")(*tensors), strict=True):
        np.testing.assert_allclose(ours, want, atol=5e-5)
        assert np.abs(want).max() > 1e-2


def test_long_prefills_in_blocks_of_queries(monkeypatch):
    monkeypatch.setattr(xla, "BLOCK", 16)
    monkeypatch.setattr(xla, "DENSE_SCORES", 1)
    orders = ring("third empty", "turn")
    check(Implementation("cache_attention", "xla"), "turn", orders, window=90)


def test_long_prefills_never_hold_all_scores():
    """7B at 720p: 28 heads x 768 queries x 13,440 slots would be 1.2 GB of scores; blocks of 128 queries are 193 MB."""
    b, t, c, n, k, h = 1, 768, 13_440, 28, 4, 128
    f = jax.jit(lambda *a: cache_attention(*a, scale=0.1))
    shapes = [(b, t, n, h), (b, k, c, h), (b, k, c, h)]
    abstract = [jax.ShapeDtypeStruct(s, jnp.bfloat16) for s in shapes]
    abstract += [jax.ShapeDtypeStruct(s, jnp.int32) for s in ((b, t), (b, c))]
    assert f.lower(*abstract).compile().memory_analysis().temp_size_in_bytes < 800e6


@pytest.mark.parametrize("dtype", [jnp.int8, jnp.float8_e4m3fn])
@pytest.mark.parametrize("lanes", [None, (2, 0)])
def test_numbers_of_8_bits_times_their_scales(dtype, lanes):
    """Keys and values in 8 bits give what the numbers that they stand for give, in their lanes too."""
    rng, (batch, tokens, heads, groups, slots, dim) = np.random.default_rng(0), (2, 3, 4, 2, 24, 16)
    query = jnp.asarray(rng.normal(size=(batch, tokens, heads, dim)), jnp.float32)
    pool = batch if lanes is None else 3
    keys = jnp.asarray(rng.integers(-100, 100, (batch, groups, slots, dim)), jnp.float32).astype(dtype)
    values = jnp.asarray(rng.integers(-100, 100, (pool, groups, slots, dim)), jnp.float32).astype(dtype)
    scales = tuple(jnp.asarray(rng.uniform(0.001, 0.1, x.shape[:3]), jnp.float32) for x in (keys, values))
    orders = (
        jnp.broadcast_to(jnp.arange(slots - tokens, slots), (batch, tokens)),
        jnp.broadcast_to(jnp.arange(slots), (batch, slots)),
    )
    lanes = None if lanes is None else jnp.asarray(lanes)
    wide = [x.astype(jnp.float32) * scale[..., None] for x, scale in zip((keys, values), scales, strict=True)]
    wanted = cache_attention(query, *wide, *orders, value_lanes=lanes, scale=0.2)
    for name in ("auto", "xla", "reference"):
        given = {"scales": scales, "value_lanes": lanes, "scale": 0.2, "implementation": name}
        np.testing.assert_allclose(cache_attention(query, keys, values, *orders, **given), wanted, atol=1e-5)
        other = {**given, "scales": (scales[0], 2 * scales[1])}
        assert not np.allclose(cache_attention(query, keys, values, *orders, **other), wanted, atol=1e-2)


@pytest.mark.parametrize("name", ["interpret", "mosaic_tpu", "mosaic_gpu"])
def test_no_kernel_of_ours_takes_8_bits(name):
    keys, scale = jnp.zeros((1, 1, 64, 128), jnp.int8), jnp.ones((1, 1, 64))
    query, order = jnp.zeros((1, 1, 1, 128), jnp.bfloat16), jnp.zeros((1, 1), jnp.int32)
    with pytest.raises(NotImplementedError, match="cannot run as"):
        cache_attention(
            query, keys, keys, order, jnp.zeros((1, 64), jnp.int32), scales=(scale, scale), scale=1.0, implementation=name
        )


def test_a_sink_needs_a_window():
    with pytest.raises(ValueError, match="sink is 4 but window is None"):
        run(Implementation("cache_attention", "xla"), arrays("word", jnp.float32), ring("full", "word"), sink=4)


@pytest.fixture
def blocks_of_64(monkeypatch):
    """Long caches, in small: three blocks and a part of one."""
    monkeypatch.setattr(xla, "SLOTS", 64)
    jax.clear_caches()
    yield
    jax.clear_caches()


@pytest.mark.parametrize("kind", ["empty", "one slot", "third empty", "seam"])
@pytest.mark.parametrize("shape", ["word", "turn"])
def test_long_caches_in_blocks_of_slots(blocks_of_64, shape, kind):
    for options in ({}, {"sink": 4, "window": 30}):
        check(Implementation("cache_attention", "xla"), shape, ring(kind, shape), **options)


def test_gradients_of_blocks_of_slots(blocks_of_64):
    test_gradients("xla")


def test_long_caches_in_their_lanes(blocks_of_64):
    for lanes in ((3, 0), (1, 4)):
        test_values_are_read_in_their_lanes(lanes, Implementation("cache_attention", "xla"))
