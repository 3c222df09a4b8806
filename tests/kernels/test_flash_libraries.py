"""`flash_attention` by the libraries that do the job for tokens in their order: splash attention on TPUs, cuDNN on GPUs."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo

from pallas_kernels import compat, dispatch
from pallas_kernels.flash_attention import LSE_NAME, OUT_NAME, flash_attention, splash
from pallas_kernels.flash_attention.api import place_in_segment
from tests.kernels.implementations import implementations, race_found
from tests.kernels.test_dispatch import described
from tests.kernels.test_flash_attention import ATOL, SCALE, arrays, packed, run

# (packed sequences, options) in which no token has an order of its own.
PROBLEMS = {
    "causal": ("one", {}),
    "packed": ("many", {}),
    "window": ("two", {"window": 40}),
    "sink": ("one", {"sink": 5, "window": 40}),
}


def problem(name):
    """Segment ids, None for a single sequence, and the options."""
    packing, options = PROBLEMS[name]
    return (None if packing == "one" else packed(packing)[1]), options


@pytest.mark.parametrize(
    "implementation", implementations("flash_attention", "interpret", "splash interpreter", "gpu interpreter", "splash")
)
@pytest.mark.parametrize("name", PROBLEMS)
def test_tokens_in_their_order(name, implementation):
    """Output, log-sum-exp, and the gradients through both, against the reference with the orders written out."""
    segment, options = problem(name)
    _, segment_written_out = packed(PROBLEMS[name][0])
    order = place_in_segment(segment_written_out)
    tensors = arrays(implementation.dtype)
    (out, lse), gradients = run(implementation.name, tensors, None, segment, **options)
    exact = (*(x.astype(jnp.float32) for x in tensors[:-1]), tensors[-1])
    (want, want_lse), want_gradients = run("reference", exact, order, segment_written_out, **options)
    np.testing.assert_allclose(out, want, atol=2 * implementation.atol)
    np.testing.assert_allclose(lse, want_lse, atol=1e-4, rtol=1e-5)
    for have, gradient in zip(gradients, want_gradients, strict=True):
        assert np.abs(gradient).max() > 0.5
        np.testing.assert_allclose(have, gradient, atol=ATOL[jnp.dtype(implementation.dtype).name])


@pytest.mark.parametrize("implementation", implementations("flash_attention", "splash interpreter"))
@pytest.mark.parametrize("tokens", [64, 128, *(pytest.param(n, marks=pytest.mark.slow) for n in (600, 1200))])
def test_splash_in_any_number_of_blocks(tokens, implementation):
    *tensors, d_lse = arrays(jnp.float32, tokens)
    options = {"scale": SCALE, "sink": 3, "window": 100}
    order = jnp.arange(tokens)[None]
    out, pull = jax.vjp(functools.partial(flash_attention, implementation="xla", return_lse=True, **options), *tensors[:3])
    have, lse = splash.forward(*tensors[:3], order, None, interpret=True, **options)
    np.testing.assert_allclose(have, out[0], atol=1e-5)
    np.testing.assert_allclose(lse, out[1], atol=1e-4)
    delta = jnp.einsum("btnh,btnh->bnt", tensors[3], have) - d_lse
    gradients = splash.backward(*tensors[:3], order, None, have, lse, delta, tensors[3], interpret=True, **options)
    for ours, theirs in zip(gradients, pull((tensors[3], d_lse)), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=5e-5)


@pytest.mark.slow
@pytest.mark.parametrize("implementation", implementations("flash_attention", "splash races"))
def test_splash_under_the_race_detector(implementation):
    run(implementation.name, arrays(jnp.float32, 60), None, None)
    assert not race_found(implementation.name)


@pytest.mark.parametrize("implementation", implementations("flash_attention", "cudnn"))
@pytest.mark.parametrize("window", [None, 40])
def test_cudnn_on_a_gpu(window, implementation):
    query, keys, values, d_out, _ = arrays(implementation.dtype)

    def both(name, *qkv):
        attend = functools.partial(flash_attention, scale=SCALE, window=window, implementation=name)
        out, pull = jax.vjp(attend, *qkv)
        return out, pull(d_out.astype(out.dtype))

    have, gradients = jax.jit(functools.partial(both, "cudnn"))(query, keys, values)
    exact = [x.astype(jnp.float32) for x in (query, keys, values)]
    want, want_gradients = both("reference", *exact)
    np.testing.assert_allclose(have.astype(jnp.float32), want, atol=2 * implementation.atol)
    for ours, theirs in zip(gradients, want_gradients, strict=True):
        np.testing.assert_allclose(ours.astype(jnp.float32), theirs, atol=ATOL["bfloat16"])


@pytest.fixture
def a_gpu_with_cudnn(monkeypatch):
    """Not a GPU, but what JAX asks one before it writes cuDNN's attention into a program."""
    monkeypatch.setitem(dispatch._NEEDS, "cudnn", lambda: None)
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91300)
    monkeypatch.setattr(fused_attention_stablehlo, "check_compute_capability", lambda capability: True)
    monkeypatch.setattr(fused_attention_stablehlo, "is_cuda_compute_capability_equal", lambda capability: False)
    caches = dispatch._missing, dispatch._kernel
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


SPECS = [jax.ShapeDtypeStruct((2, 300, heads, 128), jnp.bfloat16) for heads in (4, 2, 2)]


def lowered(attend):
    """Lines of a function's value and gradient, lowered for a GPU."""

    def total(*qkv):
        return attend(*qkv).astype(jnp.float32).sum()

    run = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))
    return run.trace(*SPECS).lower(lowering_platforms=("cuda",)).as_text().splitlines()


def programs(attend):
    """The kernels and libraries that a function's value and gradient call, with the names of their operands taken out."""
    return [re.sub(r"%\w+(:\d+|#\d+)?", "", line.strip()) for line in lowered(attend) if "custom_call @" in line]


@pytest.mark.usefixtures("a_gpu_with_cudnn")
@pytest.mark.parametrize("implementation", ["cudnn", "auto"])
@pytest.mark.parametrize("window", [None, 40])
def test_cudnn_is_given_what_jax_gives_it(window, implementation):
    """The program of `jax.nn.dot_product_attention` and of its derivative: scale, mask, layouts and operands' shapes."""
    before = window and (window - 1, 0)
    theirs = programs(
        lambda *qkv: jax.nn.dot_product_attention(
            *qkv, scale=SCALE, is_causal=True, local_window_size=before, implementation="cudnn"
        )
    )
    ours = programs(functools.partial(flash_attention, scale=SCALE, window=window, implementation=implementation))
    assert ours == theirs
    forward, backward = ours
    assert "__cudnn$fmhaSoftmax(" in forward and "__cudnn$fmhaSoftmaxBackward(" in backward
    assert r"\22CAUSAL\22" in forward and rf"\22fmha_scale\22: {SCALE}" in forward


@pytest.mark.usefixtures("a_gpu_with_cudnn")
def test_cudnn_runs_once_when_its_results_are_saved():
    """The reason for calling cuDNN's derivative apart: it takes what was saved."""
    policy = jax.checkpoint_policies.save_only_these_names(OUT_NAME, LSE_NAME)

    def forwards(policy):
        layer = functools.partial(flash_attention, scale=SCALE, implementation="cudnn")
        lines = lowered(jax.checkpoint(lambda *qkv: jnp.sin(layer(*qkv)), policy=policy))
        return sum("call @forward" in line for line in lines)

    assert (forwards(policy), forwards(None)) == (1, 2)


SEGMENTS = jnp.zeros((2, 300), jnp.int32)


@pytest.mark.usefixtures("a_gpu_with_cudnn")
@pytest.mark.parametrize(
    ("implementation", "options", "reason"),
    [
        ("cudnn", {"order": SEGMENTS}, "an order that is given as an array"),
        ("splash", {"order": SEGMENTS}, "an order that is given as an array"),
        ("cudnn", {"segment_ids": SEGMENTS}, "packed sequences"),
        ("splash", {"segment_ids": SEGMENTS, "sink": 4, "window": 40}, "packed sequences has its sink"),
        ("cudnn", {"sink": 4, "window": 40}, "no sinks"),
    ],
)
def test_what_a_library_cannot_do_is_left_to_our_own_kernels(implementation, options, reason):
    attend = functools.partial(flash_attention, *(jnp.zeros(s.shape, s.dtype) for s in SPECS), scale=SCALE, **options)
    with pytest.raises(NotImplementedError, match=f"cannot run as '{implementation}': .*{reason}"):
        attend(implementation=implementation)
    lines = lowered(lambda *qkv: flash_attention(*qkv, scale=SCALE, **options))
    kernels = [line for line in lines if "custom_call @" in line]
    if compat.mosaic_gpu_missing() is None and compat.not_hopper() is None:
        assert kernels and all("mosaic_gpu" in line for line in kernels)
    else:  # XLA's: products, and no library
        assert not kernels and any("stablehlo.dot_general" in line for line in lines)


@pytest.mark.usefixtures("a_gpu_with_cudnn")
def test_a_log_sum_exp_that_is_used_is_differentiated_by_our_own_kernels():
    def both(*qkv):
        out, lse = flash_attention(*qkv, scale=SCALE, return_lse=True)
        return out + lse.swapaxes(1, 2)[..., None]

    lines = programs(both)
    assert sum("cudnn" in line for line in lines) == 1, "the forward pass gives one"
    assert not any("fmhaSoftmaxBackward" in line for line in lines)


@pytest.mark.usefixtures("a_gpu_with_cudnn")
@pytest.mark.parametrize(
    ("dtype", "dim", "reason"),
    [("float32", 64, "not float32"), ("bfloat16", 20, "of 20 is"), ("bfloat16", 192, "of 192 is")],
)
def test_what_cudnn_does_not_take(dtype, dim, reason):
    query = jnp.zeros((1, 4, 2, dim), dtype)
    with pytest.raises(NotImplementedError, match=reason):
        flash_attention(query, query, query, scale=SCALE, implementation="cudnn")


@pytest.mark.usefixtures("a_gpu_with_cudnn")
def test_cudnn_where_training_calls_it():
    """In layers that are scanned and recomputed, on each of eight devices: rows of its own, heads of its own."""
    mesh = jax.make_mesh((4, 2), ("data", "tensor"), axis_types=(jax.sharding.AxisType.Explicit,) * 2)
    heads = jax.sharding.PartitionSpec("data", None, "tensor", None)
    local = functools.partial(flash_attention, scale=SCALE)

    def total(query, keys, values):
        def layer(x, _):
            return jax.shard_map(local, in_specs=(heads,) * 3, out_specs=heads, check_vma=False)(x, keys, values), None

        return jax.lax.scan(jax.checkpoint(layer, prevent_cse=False), query, length=3)[0].astype(jnp.float32).sum()

    with jax.set_mesh(mesh):
        where = jax.sharding.NamedSharding(mesh, heads)
        specs = [jax.ShapeDtypeStruct((4, 300, n, 128), jnp.bfloat16, sharding=where) for n in (4, 2, 2)]
        program = jax.jit(jax.grad(total, argnums=(0, 1, 2))).trace(*specs).lower(lowering_platforms=("cuda",)).as_text()
    shapes = re.findall(r"@__cudnn\$fmhaSoftmax(?:Backward)?\(.*: \((tensor<\S+>), ", program)
    assert shapes == ["tensor<1x300x2x128xbf16>"] * len(shapes) and len(shapes) >= 2


@pytest.mark.skipif(compat.cudnn_missing() is None, reason="there is a GPU with cuDNN")
def test_cudnn_needs_a_gpu():
    with pytest.raises(NotImplementedError, match=r"cannot run as 'cudnn': .*there is none"):
        flash_attention(*(jnp.zeros(s.shape, s.dtype) for s in SPECS), scale=SCALE, implementation="cudnn")


def test_auto_on_a_tpu_takes_splash_where_it_can_and_ours_elsewhere():
    def names(**options):
        attend = functools.partial(flash_attention, scale=SCALE, **options)
        with jax.sharding.use_abstract_mesh(described("tpu")):
            text = jax.jit(attend).trace(*SPECS).lower(lowering_platforms=("tpu",)).as_text(debug_info=True)
        return "splash_mha_fwd" in text, "tpu_custom_call" in text

    assert names() == (True, True)
    assert names(segment_ids=SEGMENTS, window=40) == (True, True)
    assert names(segment_ids=SEGMENTS, window=40, sink=4) == (False, True)
    assert names(order=SEGMENTS) == (False, True)
