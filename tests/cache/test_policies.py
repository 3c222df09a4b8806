"""What a memory can be asked to be."""

import dataclasses
import json
from typing import ClassVar

import numpy as np
import pytest

from svlm_jax.cache import policies
from svlm_jax.cache.policies import memory_policy
from svlm_jax.cache.policies.base import BudgetPolicy
from svlm_jax.cache.policies.last_frames import LastFrames
from svlm_jax.cache.vsb import recent
from svlm_jax.cli import main as cli
from svlm_jax.errors import CheckpointError, ConfigError
from svlm_jax.streaming.vlm import StreamingVLM
from svlm_jax.video.chunk import Chunk
from tests.checkpoints import tiny


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"policy": "lru"}, "policy='lru'"),
        ({"positions": "absolute"}, "positions='absolute'"),
        ({"policy": "vsb", "buckets": "frames"}, "buckets='frames'"),
        ({"budget": 0}, "budget=0"),
        ({"clip_frames": 0}, "clip_frames=0"),
        ({"recent_frames": -1}, "recent_frames=-1"),
        ({"scatter": 1.5}, "scatter=1.5"),
        ({"retrieve": 0.0}, "retrieve=0.0"),
        ({"policy": "window", "window": float("inf")}, "window=inf"),
        ({"similar": 2.0}, "similar=2.0"),
        ({"policy": "vsb", "page_positions": True}, "page_positions=True with policy=vsb, which ignores it"),
    ],
)
def test_settings_that_cannot_work(changes, named):
    with pytest.raises(ConfigError, match=named):
        memory_policy(**changes)


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
        memory_policy(policy, **{option: value})
    assert memory_policy(policy, **{option: None}) == memory_policy(policy)


def test_options_that_were_given_are_taken():
    assert memory_policy("vsb+par", retrieve=0.2, window=None) == memory_policy(retrieve=0.2)
    assert memory_policy("last-frames", frames=8) == LastFrames(frames=8)


@dataclasses.dataclass(frozen=True)
class EveryOther(BudgetPolicy):
    """A policy of the test's own: every `stride`-th token of the stream, as far as the budget goes."""

    name: ClassVar[str] = "every-other"
    stride: int = 2

    def keep(self, shape, meta, score, count, seen):
        return recent(count, shape.vision, count) & (meta.place % self.stride == 0)


def test_a_policy_is_one_class_and_one_registration(monkeypatch, tmp_path):
    """It is made by name, offered on the command line, run by the engine and saved like those of the package."""
    monkeypatch.setitem(policies.POLICIES, EveryOther.name, EveryOther)
    chosen = ["--memory", "every-other,stride=3,clip_frames=4,budget=12"]
    policy = cli.parser().parse_args(["ask", "match.mp4", "Why?", "--model", "here", *chosen]).memory
    assert policy == EveryOther(stride=3, clip_frames=4, budget=12)
    with pytest.raises(ConfigError, match="memory stride=3 with policy=fifo, which ignores it: expected every-other"):
        memory_policy("fifo", stride=3)

    vlm = StreamingVLM.from_pretrained(tiny())
    stream = vlm.qa_session(memory=policy, fps=1.0)
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 256, (4, 3, 56, 84), np.uint8)
        stream.feed(Chunk(frames=pixels, start=4.0 * i, end=4.0 * i + 4))
    assert stream.state.meta.place[0, 0, : int(stream.state.count[0])].tolist() == list(range(0, 36, 3))
    tokens = stream.ask("What happened?").tokens
    assert tokens

    stream.save(tmp_path / "saved")
    resumed = vlm.resume_qa(tmp_path / "saved")
    assert resumed.settings.memory == policy and resumed.ask("What happened?").tokens == tokens
    monkeypatch.delitem(policies.POLICIES, EveryOther.name)
    with pytest.raises(CheckpointError, match="every-other"):
        vlm.resume_qa(tmp_path / "saved")


@pytest.mark.parametrize("policy", policies.POLICIES)
def test_a_policy_goes_through_json(policy):
    own = {"positions": "original", "similar": 0.9} | ({"window": 3.5} if policy == "window" else {})
    made = memory_policy(policy, **own)
    written = json.loads(json.dumps(policies.to_json(made)))
    assert written["policy"] == policy and policies.from_json(written, "it") == made


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"policy": "lru"}, "'lru': expected one of full"),
        ({"policy": None}, "no field 'policy'"),
        ({"budget": "many"}, "'budget' is 'many'"),
        ({"budget": 10**9}, "'budget' is 1000000000"),
        ({"budget": 0}, "budget=0"),
        ({"positions": "absolute"}, "positions='absolute'"),
        ({"page_positions": 1}, "'page_positions' is 1"),
        ({"frames": 8}, "has a field 'frames': expected any of policy, .*clip_frames"),
    ],
)
def test_what_a_file_says_of_a_policy_is_checked(change, named):
    with pytest.raises(CheckpointError, match=f"^it.*{named}"):
        policies.from_json(policies.to_json(memory_policy()) | change, "it")
