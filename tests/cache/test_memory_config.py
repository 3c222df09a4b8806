"""What a memory can be asked to be."""

import pytest

from svlm_jax.cache.memory_config import MemoryConfig
from svlm_jax.errors import ConfigError


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"policy": "lru"}, "policy='lru'"),
        ({"positions": "absolute"}, "positions='absolute'"),
        ({"buckets": "frames"}, "buckets='frames'"),
        ({"budget": 0}, "budget=0"),
        ({"clip_frames": 0}, "clip_frames=0"),
        ({"recent_frames": -1}, "recent_frames=-1"),
        ({"scatter": 1.5}, "scatter=1.5"),
        ({"retrieve": 0.0}, "retrieve=0.0"),
        ({"window": float("inf")}, "window=inf"),
        ({"similar": 2.0}, "similar=2.0"),
        ({"policy": "vsb", "page_positions": True}, "page_positions with policy=vsb"),
    ],
)
def test_settings_that_cannot_work(changes, named):
    with pytest.raises(ConfigError, match=named):
        MemoryConfig(**changes)


@pytest.mark.parametrize(
    ("policy", "option", "value", "expected"),
    [
        ("vsb", "retrieve", 0.2, r"vsb\+par"),
        ("fifo", "window", 8.0, "window"),
        ("full", "frames", 8, "last-frames"),
        ("window", "budget", 100, r"full, fifo, top-k, vsb, vsb\+par"),
        ("last-frames", "clip_frames", 8, r"full, window, fifo, top-k, vsb, vsb\+par"),
    ],
)
def test_options_that_a_policy_does_not_look_at_are_refused_when_they_are_given(policy, option, value, expected):
    with pytest.raises(
        ConfigError, match=rf"memory {option}={value} with policy={policy}, which ignores it: expected {expected}$"
    ):
        MemoryConfig.of(policy, **{option: value})
    assert MemoryConfig.of(policy, **{option: None}) == MemoryConfig(policy=policy)


def test_options_that_were_given_are_taken():
    assert MemoryConfig.of("vsb+par", retrieve=0.2, window=None) == MemoryConfig(retrieve=0.2)
    assert MemoryConfig.of("last-frames", frames=8) == MemoryConfig(policy="last-frames", frames=8)
