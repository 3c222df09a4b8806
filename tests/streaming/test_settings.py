"""Settings of a stream through JSON, and what a damaged file of them says."""

import json

import pytest

from svlm_jax.cache.window import WindowConfig
from svlm_jax.engine.sampling import Sampling
from svlm_jax.errors import CheckpointError
from svlm_jax.streaming.settings import StreamSettings, sampling_from_json

SETTINGS = StreamSettings(
    window=WindowConfig(vision=3.5, sink=None, tail=None), sampling=Sampling(suppress=(1, 2)), query=None, duration=9.0
)


def through_json(settings):
    return json.loads(json.dumps(settings.to_json()))


@pytest.mark.parametrize("settings", [StreamSettings(), SETTINGS])
def test_settings_survive_json(settings):
    assert StreamSettings.from_json(through_json(settings), "it") == settings


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fps": float("nan")}, "it, field 'fps' is nan"),
        ({"seed": "x"}, "field 'seed'"),
        ({"window": {"vision": True}}, "it, window, field 'vision' is True"),
        ({"window": {"memory": "elephant"}}, "'elephant': expected one of stream"),
        ({"sampling": {"suppress": [0.5]}}, r"it, sampling, field 'suppress\[0\]' is 0.5"),
        ({"speed": 3}, "'speed'"),
    ],
)
def test_damaged_settings_are_named(change, words):
    with pytest.raises(CheckpointError, match=words):
        StreamSettings.from_json({**through_json(SETTINGS), **change}, "it")


def test_sampling_of_no_object():
    with pytest.raises(CheckpointError, match="it is 3: expected an object"):
        sampling_from_json(3, "it")
