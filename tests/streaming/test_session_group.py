"""Streams in one program say token for token what each says alone, whichever of them have a chunk, and one may fail alone."""

import dataclasses

import numpy as np
import pytest

from svlm_jax.engine import lanes
from svlm_jax.errors import ConfigError, StreamError
from svlm_jax.streaming.session_group import SessionGroup
from svlm_jax.video.chunk import Chunk
from tests.streaming.streams import SETTINGS, chunk, model, run, sampling

SIZES = {"hall": (56, 84), "gate": (56, 84), "roof": (56, 56)}  # the last one has fewer tokens
SECONDS = {"hall": 7, "gate": 4, "roof": 6}
GIVEN = dataclasses.replace(SETTINGS, sampling=sampling(top_k=20, max_new_tokens=6))


def picture(name):
    return {"seed": list(SIZES).index(name) + 1, "size": SIZES[name]}


def group(names=tuple(SIZES)):
    return SessionGroup(model(), dict.fromkeys(names, GIVEN), {name: chunk(0, **picture(name)) for name in names})


@pytest.mark.parametrize(
    "names", [("hall", "gate"), pytest.param(tuple(SIZES), marks=pytest.mark.slow)], ids=["one size", "two"]
)
def test_each_says_what_it_says_alone(names):
    together, said, rng = group(names), {name: [] for name in names}, np.random.default_rng(3)
    together.rehearse()
    programs = lanes.step._cache_size()
    while any(len(said[name]) < SECONDS[name] for name in names):
        due = [name for name in names if len(said[name]) < SECONDS[name] and rng.random() < 0.7]
        chunks = {name: chunk(len(said[name]), **picture(name)) for name in due}
        for name, caption in together.feed(chunks).items():
            said[name].append(caption.tokens)
            if len(said[name]) == SECONDS[name]:
                together.close(name)
    assert lanes.step._cache_size() == programs, "one program for each picture size, however many have a chunk"
    for name in names:
        assert said[name] == run(model().stream(GIVEN), 0, SECONDS[name], **picture(name)), name
    assert len({str(tokens) for tokens in said.values()}) == len(names)


def test_what_is_wrong_with_one_stands_in_its_place():
    large = Chunk(np.zeros((2, 3, 112, 112), np.uint8), 0.0, 1.0)
    said = group(("hall", "gate")).feed({"hall": large})
    assert isinstance(said["hall"], StreamError) and "do not fit the cache" in str(said["hall"])


def test_clips_of_several_sizes_cannot_be_kept_side_by_side():
    settings = dataclasses.replace(GIVEN, window=dataclasses.replace(GIVEN.window, memory="recompute"))
    names = ("hall", "roof")
    with pytest.raises(ConfigError, match="pictures of 2 sizes"):
        SessionGroup(model(), dict.fromkeys(names, settings), {name: chunk(0, **picture(name)) for name in names})
