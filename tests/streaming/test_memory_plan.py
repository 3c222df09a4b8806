"""What the doctor says of a stream before it begins, and what a session asks of the device, is what its arrays take."""

import dataclasses

import jax
import pytest

from svlm_jax.checkpoint import named
from svlm_jax.errors import ConfigError
from svlm_jax.streaming import memory_plan, session
from tests.streaming import streams


def held(*arrays):
    return sum(leaf.nbytes for leaf in jax.tree.leaves(arrays))


def test_plan_session_and_arrays_agree(monkeypatch):
    about = named.describe(streams.GOLDEN / "streamingvlm/checkpoint")
    settings = dataclasses.replace(streams.SETTINGS, previous_text="", sampling=streams.sampling())
    stream = streams.model().stream(settings)
    stream.begin(streams.chunk(0))
    lengths = memory_plan.lengths_of(about, settings, 56, 84)
    plan = memory_plan.plan(about.config, settings.window, lengths, dtype="float32", streams=3)
    state = stream.state
    assert plan.cache == 3 * held(state.keys, state.values, state.slots)
    assert plan.rotated == 3 * held(state.keys)
    assert plan.cache + plan.rotated == 3 * stream.config.cache_bytes.total

    # A session begins with as many bytes as that, and not with one less.
    for there, fits in ((stream.config.cache_bytes.total, True), (stream.config.cache_bytes.total - 1, False)):
        monkeypatch.setattr(session, "device_memory", lambda device, there=there: there)
        other = streams.model().stream(settings)
        if fits:
            other.begin(streams.chunk(0))
        else:
            with pytest.raises(ConfigError, match="needs a cache of"):
                other.begin(streams.chunk(0))
