"""Weights of 8 bits: what they lose, what is left as it was, and that whole models compute with them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from svlm_jax.checkpoint import hf
from svlm_jax.errors import ConfigError
from svlm_jax.models import functional, quant
from svlm_jax.models.functional import abstract_params
from svlm_jax.models.layers import Embedding, Linear
from svlm_jax.models.presets import preset
from svlm_jax.models.quant import QuantArray
from svlm_jax.streaming import memory_plan
from tests import checkpoints

SCHEMES = ("int8", "fp8")
# Half a step of 1/127; half the distance of two numbers with three bits of mantissa.
ERROR = {"int8": 0.5 / 127, "fp8": 2.0**-4}


def weight(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.standard_normal(shape) * rng.uniform(0.1, 10, shape[-1:]), jnp.float32)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_number_is_further_off_than_rounding(scheme):
    w = weight(96, 40).at[:, 3].set(0)
    q = quant.quantize(w, scheme, "matrix")
    assert q.values.dtype.itemsize == 1 and q.scale.shape == (40,) and q.dtype == w.dtype
    off = jnp.abs(q.values.astype(jnp.float32) * q.scale - w)
    most = jnp.abs(w).max(0) if scheme == "int8" else jnp.abs(w) + jnp.abs(w).max(0) * 2.0**-10
    assert (off <= ERROR[scheme] * most * 1.001).all()
    assert not q.values[:, 3].astype(jnp.float32).any()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_layer_multiplies_by_what_the_numbers_stand_for(scheme):
    rngs = nnx.Rngs(0)
    linear = Linear(96, 40, bias=True, dtype=jnp.float32, rngs=rngs)
    x, q = weight(2, 5, 96, seed=1), quant.quantize(weight(96, 40), scheme, "matrix")
    linear.weight.set_value(q)
    expected = x @ (q.values.astype(jnp.float32) * q.scale)
    np.testing.assert_allclose(linear(x), expected, rtol=1e-4, atol=1e-4)

    table = Embedding(50, 24, dtype=jnp.float32, rngs=rngs)
    of = quant.quantize(weight(50, 24), scheme, "table")
    table.weight.set_value(of)
    rows = table(jnp.asarray([[3, 49]]))
    np.testing.assert_allclose(rows, (of.values.astype(jnp.float32) * of.scale[:, None])[jnp.asarray([[3, 49]])], rtol=1e-6)


def logits(config, params):
    tokens = jax.random.randint(jax.random.key(0), (1, 48), 0, 250)
    positions = jnp.broadcast_to(jnp.arange(48.0), (1, 3, 48))
    return jax.nn.log_softmax(jax.jit(lambda p: functional.bind(config, p)(tokens, positions))(params))


@pytest.mark.parametrize(("scheme", "most"), [("int8", 2e-3), ("fp8", 3e-2)])
@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava_onevision"])
def test_a_loaded_model_is_close_and_half_as_large(family, scheme, most):
    """Kullback-Leibler divergence of the next token's distribution, in nats, mean over tokens."""
    whole = hf.load(checkpoints.tiny(family))
    small = hf.load(checkpoints.tiny(family), quantize=scheme)
    expected, got = logits(whole.config, whole.params), logits(small.config, small.params)
    divergence = (jnp.exp(expected) * (expected - got)).sum(-1).mean()
    assert 1e-7 < divergence < most
    assert hf.dtype_of(small.params) == jnp.float32
    decoder = small.params["decoder"]
    assert isinstance(decoder["layers"]["0"]["mlp"]["gate_up"]["weight"], QuantArray)
    assert isinstance(decoder["layers"]["0"]["attn"]["qkv"]["bias"], jax.Array)
    assert not any(isinstance(x, QuantArray) for x in jax.tree.leaves(small.params["visual"]))


def test_loading_and_quantising_at_once_are_the_same():
    whole = hf.load(checkpoints.tiny())
    loaded, at_once = hf.load(checkpoints.tiny(), quantize="int8").params, quant.quantize_params(whole.params, "int8")
    assert jax.tree.structure(loaded) == jax.tree.structure(at_once)
    assert all(jax.tree.leaves(jax.tree.map(jnp.array_equal, loaded, at_once)))


def test_seven_billion_parameters_take_half():
    """The tower and the norms stay: 16.6 GB of bfloat16 become 8.9."""
    config = preset("qwen2.5-vl-7b")
    whole, small = (
        memory_plan.plan(config, memory_plan.WindowConfig(), memory_plan.QWEN_LENGTHS, quantize=scheme).parameters
        for scheme in (None, "int8")
    )
    assert whole == sum(2 * np.prod(leaf.shape) for leaf in jax.tree.leaves(abstract_params(config)))
    assert 8.8e9 < small < 9.1e9 < 0.56 * whole


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("decoder.embed.weight", "table"),
        ("decoder.head.weight", "matrix"),
        ("decoder.layers.11.mlp.down.weight", "matrix"),
        ("decoder.layers.0.attn.q_norm.weight", None),
        ("decoder.layers.0.attn.qkv.bias", None),
        ("visual.blocks.0.attn.qkv.weight", None),
    ],
)
def test_what_is_quantised(path, expected):
    assert quant.kind(path) == expected


def test_unknown_schemes_are_named():
    with pytest.raises(ConfigError, match="quantize='int3': expected one of int8, fp8"):
        hf.load(checkpoints.tiny(), quantize="int3")
