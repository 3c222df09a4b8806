"""Causal attention of packed sequences, forward and backward: one suite for all implementations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from pallas_kernels.flash_attention import LSE_NAME, OUT_NAME, flash_attention, xla
from pallas_kernels.flash_attention.api import place_in_segment
from tests.kernels.implementations import SIMULATORS, implementations, np_tree, race_found, simulator

SCALE = 0.2
T, N, K, H = 300, 4, 2, 64
# Lengths of the packed sequences in a row; the rest is padding. No boundary lies at the edge of a block.
PACKINGS = {"one": (300,), "two": (170, 130), "many": (1, 2, 90, 64, 100), "padded": (150, 100)}
OPTIONS = {"causal": {}, "window": {"sink": 5, "window": 40}}
ATOL = {"float32": 3e-5, "bfloat16": 0.12}  # of gradients of order 1 to 10


def arrays(dtype, tokens=T, seed=0):
    """query, keys, values, and the cotangents of the output and of its log-sum-exp."""
    rng = np.random.default_rng(seed)
    shapes = (1, tokens, N, H), (1, tokens, K, H), (1, tokens, K, H), (1, tokens, N, H)
    tensors = [jnp.asarray(rng.standard_normal(s), dtype) for s in shapes]
    return (*tensors, jnp.asarray(rng.standard_normal((1, N, tokens)), jnp.float32))


def packed(name, tokens=T):
    """Order and segment ids; padding has order -1."""
    lengths = PACKINGS[name]
    segment = np.full((1, tokens), len(lengths), np.int32)
    segment[0, : sum(lengths)] = np.repeat(np.arange(len(lengths)), lengths)
    segment = jnp.asarray(segment)
    order = jnp.where(jnp.arange(tokens) < sum(lengths), place_in_segment(segment), -1)
    return order, segment


@functools.cache
def compiled(name, options):
    """(query, keys, values, d_out, d_lse, order, segment_ids) -> ((out, lse), gradients). Order None: tokens in their order."""
    options = dict(options)

    def by_rule(query, keys, values, d_out, d_lse, order, segment_ids):
        def attend(*qkv):
            rest = {"order": order, "segment_ids": segment_ids, "return_lse": True, "implementation": name}
            return flash_attention(*qkv, scale=SCALE, **rest, **options)

        out, pull = jax.vjp(attend, query, keys, values)
        return out, pull((d_out, d_lse))

    def by_simulator(query, keys, values, d_out, d_lse, order, segment_ids):
        kernel, interpret = simulator("flash_attention", name)
        rules = {"scale": SCALE, "sink": None, "window": None, "in_order": order is None, "interpret": interpret, **options}
        if order is None:
            order = place_in_segment(jnp.zeros(query.shape[:2], jnp.int32) if segment_ids is None else segment_ids)
        out, lse = kernel.forward(query, keys, values, order, segment_ids, **rules)
        delta = jnp.einsum("btnh,btnh->bnt", d_out.astype(jnp.float32), out.astype(jnp.float32)) - d_lse
        return (out, lse), kernel.backward(query, keys, values, order, segment_ids, None, lse, delta, d_out, **rules)

    return jax.jit(by_simulator if name in SIMULATORS else by_rule)


def run(name, tensors, order, segment_ids, **options):
    return np_tree(compiled(name, tuple(sorted(options.items())))(*tensors, order, segment_ids))


@functools.cache
def expected(packing, option, dtype, tokens=T):
    """The reference in float32, on the same, perhaps rounded, numbers; its gradients are JAX's own."""
    *tensors, d_lse = arrays(dtype, tokens)
    return run("reference", (*(x.astype(jnp.float32) for x in tensors), d_lse), *packed(packing, tokens), **OPTIONS[option])


def compare(implementation, packing, option, tokens=T):
    (out, lse), gradients = run(
        implementation.name, arrays(implementation.dtype, tokens), *packed(packing, tokens), **OPTIONS[option]
    )
    (want, want_lse), want_gradients = expected(packing, option, implementation.dtype, tokens)
    np.testing.assert_allclose(out, want, atol=2 * implementation.atol)
    np.testing.assert_allclose(lse, want_lse, atol=1e-4, rtol=1e-5)
    for have, gradient in zip(gradients, want_gradients, strict=True):
        assert np.abs(gradient).max() > 0.5
        np.testing.assert_allclose(have, gradient, atol=ATOL[jnp.dtype(implementation.dtype).name])


@pytest.fixture(params=implementations("flash_attention"))
def implementation(request):
    return request.param


def test_the_reference_is_the_definition():
    """One token at a time, over the tokens it sees, in float64."""
    query, keys, values, *_ = (np.asarray(x, np.float64) for x in arrays(jnp.float32))
    order, segment = (np.asarray(x)[0] for x in packed("padded"))
    (out, lse), _ = expected("padded", "window", jnp.float32)
    sink, window = OPTIONS["window"]["sink"], OPTIONS["window"]["window"]
    for t in range(T):
        seen = (segment == segment[t]) & (order >= 0) & (order <= order[t]) & ((order < sink) | (order[t] - order < window))
        assert seen.any() == (t < sum(PACKINGS["padded"]))
        for n in range(N) if seen.any() else ():
            score = SCALE * keys[0, seen, n // (N // K)] @ query[0, t, n]
            total = np.log(np.exp(score).sum())
            np.testing.assert_allclose(lse[0, n, t], total, rtol=1e-5)
            np.testing.assert_allclose(out[0, t, n], np.exp(score - total) @ values[0, seen, n // (N // K)], atol=5e-6)


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("packing", PACKINGS)
def test_output_and_gradients(packing, option, implementation):
    compare(implementation, packing, option)


@pytest.mark.parametrize("implementation", implementations("flash_attention", "xla", "interpret"))
def test_several_blocks(implementation, monkeypatch):
    """More tokens than a block of any implementation: blocks are skipped, and others are partly seen."""
    monkeypatch.setattr(xla, "SCORES", N * 1200 * 100)
    compare(implementation, "padded", "window", tokens=1200)


def test_padding_is_zero(implementation):
    (out, lse), gradients = run(implementation.name, arrays(implementation.dtype), *packed("padded"))
    real = sum(PACKINGS["padded"])
    assert (out[:, real:] == 0).all() and (lse[:, :, real:] <= -1e29).all()
    for gradient in gradients:
        np.testing.assert_array_equal(gradient[:, real:], 0)


def test_sequences_are_alone(implementation):
    """Changing one packed sequence leaves the other's output as it is, bit for bit."""
    query, keys, values, *rest = arrays(implementation.dtype)
    order, segment = packed("two")
    before, _ = run(implementation.name, (query, keys, values, *rest), order, segment)
    other = query.at[:, 170:].add(1), keys.at[:, 170:].add(1), values.at[:, 170:].add(1)
    after, _ = run(implementation.name, (*other, *rest), order, segment)
    np.testing.assert_array_equal(after[0][:, :170], before[0][:, :170])
    assert np.abs(after[0][:, 170:] - before[0][:, 170:]).max() > 0.1


def test_bit_equal_twice(implementation):
    first, second = (run(implementation.name, arrays(implementation.dtype), *packed("two")) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, second)


@pytest.mark.slow
@pytest.mark.parametrize("implementation", implementations("flash_attention", "races", "gpu races"))
def test_under_the_race_detector(implementation, monkeypatch):
    monkeypatch.setitem(PACKINGS, "tiny", (20, 30))
    compare(implementation, "tiny", "window", tokens=60)
    assert not race_found(implementation.name)


@pytest.mark.parametrize("name", ["xla", "auto", "interpret"])
def test_derivatives_by_finite_differences(name):
    tensors = tuple(x[:, :40, :2, :16] for x in arrays(jnp.float32)[:3])
    order, segment = jnp.arange(40)[None] % 25, (jnp.arange(40)[None] >= 25).astype(jnp.int32)

    @jax.jit
    def attend(*qkv):
        rest = {"order": order, "segment_ids": segment, "sink": 2, "window": 9, "implementation": name}
        return flash_attention(*qkv, scale=SCALE, return_lse=True, **rest)

    check_grads(attend, tensors, order=1, modes=["rev"], atol=2e-2, rtol=2e-2)


@pytest.mark.slow
def test_orders_by_default():
    *tensors, _, _ = arrays(jnp.float32)
    _, segment = packed("many")
    attend = functools.partial(flash_attention, *tensors, scale=SCALE, sink=2, window=20, implementation="xla")
    given = attend(segment_ids=segment, order=place_in_segment(segment))
    np.testing.assert_allclose(attend(segment_ids=segment), given, atol=3e-6)
    np.testing.assert_allclose(attend(), attend(order=jnp.arange(T)[None]), atol=3e-6)


@pytest.mark.slow
def test_gradients_of_tokens_in_their_order():
    *tensors, d_out, _ = arrays(jnp.float32)
    _, segment = packed("many")
    order = place_in_segment(segment)

    def pull(**options):
        return jax.vjp(functools.partial(flash_attention, scale=SCALE, implementation="xla", **options), *tensors)[1](d_out)

    for given, default in zip(pull(order=order, segment_ids=segment), pull(segment_ids=segment), strict=True):
        np.testing.assert_allclose(default, given, atol=3e-5)


def test_what_lies_ahead_is_left_out_of_tokens_in_their_order():
    *tensors, _, _ = arrays(jnp.float32, tokens=1024)
    order = jnp.arange(1024)[None]

    def work(**options):
        attend = functools.partial(flash_attention, scale=SCALE, implementation="xla", **options)
        return jax.jit(attend).lower(*tensors).compile().cost_analysis()["flops"]

    assert work() < 0.65 * work(order=order)


def test_attention_is_not_run_again_when_its_results_are_saved():
    *tensors, _, _ = arrays(jnp.float32)
    policy = jax.checkpoint_policies.save_only_these_names(OUT_NAME, LSE_NAME)

    def products(policy):
        def layer(query):
            order = jnp.arange(T)[None]
            return jnp.sin(flash_attention(query, *tensors[1:3], order=order, scale=SCALE, implementation="xla")).sum()

        return str(jax.make_jaxpr(jax.grad(jax.checkpoint(layer, policy=policy)))(tensors[0])).count("dot_general")

    # The forward pass has two products. Saved, they are in the program once; else once more.
    assert products(None) == products(policy) + 2


def test_a_sink_needs_a_window():
    with pytest.raises(ValueError, match="sink is 4 but window is None"):
        flash_attention(*arrays(jnp.float32)[:3], scale=SCALE, sink=4)
