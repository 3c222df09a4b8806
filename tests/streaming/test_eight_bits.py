"""Weights and caches of 8 bits, from the options of a command to the tokens of a stream."""

import argparse
import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import pytest

from svlm_jax.cache.kv import QuantSlots
from svlm_jax.checkpoint import named
from svlm_jax.cli import main as cli
from svlm_jax.cli import options
from svlm_jax.cli.stream_spec import ModelSpec, settings_of
from svlm_jax.engine import commentate
from svlm_jax.errors import CheckpointError, ConfigError
from svlm_jax.host.progress import Stages
from svlm_jax.models.quant import QuantArray
from svlm_jax.streaming.qa_session import QASettings
from svlm_jax.streaming.vlm import StreamingVLM
from tests.streaming import streams

SETTINGS = dataclasses.replace(streams.SETTINGS, keep_logits=True, sampling=streams.sampling(temperature=0.0))


@functools.cache
def quantised(scheme):
    return StreamingVLM.from_pretrained(streams.GOLDEN / "streamingvlm" / "checkpoint", dtype="float32", quantize=scheme)


def asked(*argv):
    parser = argparse.ArgumentParser()
    options.add_model(parser.add_argument_group("model"))
    options.add_window(parser.add_argument_group("cache"))
    return parser.parse_args(["--model", "random:tiny", *argv])


def test_the_options_reach_the_weights_and_the_cache():
    arguments = asked("--quantize", "int8", "--cache-dtype", "fp8")
    with Stages("loading") as stages:
        vlm = ModelSpec.of(arguments).load(stages)
    assert isinstance(vlm.params["decoder"]["embed"]["weight"], QuantArray)
    assert vlm.number_format == "float32, int8 weights"
    assert settings_of(arguments, {}).cache_dtype == "fp8"
    plain = asked()
    assert plain.quantize is None and settings_of(plain, {}).cache_dtype is None


@pytest.mark.parametrize("command", ["watch", "ask", "bench", "serve", "doctor", "eval match", "eval ovo-bench"])
def test_every_command_has_them(command, capsys):
    with pytest.raises(SystemExit):
        cli.main([*command.split(), "--help"])
    shown = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "--quantize {int8,fp8}" in shown and "--cache-dtype {float32,bfloat16,int8,fp8}" in shown


@pytest.mark.parametrize(("weights", "cache", "most"), [("int8", None, 0.05), (None, "int8", 0.05), ("fp8", "fp8", 0.6)])
def test_a_stream_of_8_bits_is_close_to_a_whole_one_and_not_the_same(weights, cache, most):
    """Nats between the first tokens' distributions, whose logits are spread over ten; then the window closes."""
    whole = streams.model().stream(SETTINGS)
    small = (quantised(weights) if weights else streams.model()).stream(SETTINGS, cache_dtype=cache)
    before = commentate.step._cache_size()
    for session in (whole, small):
        streams.run(session, 0, 1)
    p, q = (jax.nn.log_softmax(session.last.logits[0, 0]) for session in (whole, small))
    assert float(jnp.abs(p - q).max()) > 1e-4 and float((jnp.exp(p) * (p - q)).sum()) < most
    programs = commentate.step._cache_size()
    streams.run(small, 1, 6)
    assert commentate.step._cache_size() == programs <= before + 2
    assert isinstance(small.state.keys[0], QuantSlots) is (cache is not None)
    if cache:
        assert small.config.cache_bytes.stored < 0.33 * whole.config.cache_bytes.stored


def test_a_saved_stream_goes_on_as_if_it_had_never_stopped(tmp_path):
    vlm = quantised("int8")
    session = vlm.stream(SETTINGS, cache_dtype="fp8")
    streams.run(session, 0, 3)
    session.save(tmp_path)
    resumed = vlm.resume(tmp_path, keep_logits=True)
    assert resumed.state.keys[0].values.dtype == jnp.float8_e4m3fn
    assert streams.run(resumed, 3, 5) == streams.run(session, 3, 5)
    with pytest.raises(CheckpointError, match=r"another model or number format than .* float32$"):
        streams.model().resume(tmp_path)


def test_random_presets_are_drawn_in_8_bits():
    params = named.load("random:small", dtype=jnp.float32, quantize="fp8").params
    assert params["decoder"]["layers"]["0"]["attn"]["qkv"]["weight"].values.dtype == jnp.float8_e4m3fn


def test_what_cannot_be_is_one_sentence():
    with pytest.raises(ConfigError, match="quantize='int4': expected one of int8, fp8"):
        StreamingVLM.from_pretrained("random:tiny", quantize="int4")
    with pytest.raises(ConfigError, match="cache_dtype='int4': expected one of float32, bfloat16, float16, int8, fp8"):
        dataclasses.replace(SETTINGS, cache_dtype="int4")
    with pytest.raises(ConfigError, match=r"cache_dtype=.int8.: expected one of float32, bfloat16, float16$"):
        QASettings(cache_dtype="int8")
