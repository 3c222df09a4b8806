"""Matches as a video source."""

import itertools
import time

import numpy as np
import pytest

from svlm_jax.errors import SourceError
from svlm_jax.synthetic import Match
from svlm_jax.video.source import open_source


def test_frames_at_model_size_are_the_pictures_of_the_match():
    with open_source("synthetic:match?seed=3&minutes=0.1&scale=1", size=(84, 112)) as source:
        info, chunks = source.info, list(source)
    assert (info.kind, info.width, info.height, info.fps, info.duration) == ("synthetic", 112, 84, 2.0, 6.0)
    assert info.name == "synthetic:match?seed=3&minutes=0.1&scale=1" and not info.live
    assert [chunk.start for chunk in chunks] == [0, 1, 2, 3, 4, 5]
    match = Match(3)
    for chunk, second in zip(chunks, match, strict=False):
        np.testing.assert_array_equal(chunk.frames, match.frames(second).transpose(0, 3, 1, 2))


def test_without_a_length_it_never_ends_and_can_be_left():
    with open_source("synthetic:match", start=30.0) as source:
        chunks = list(itertools.islice(source, 3))
    assert source.info.duration is None and [chunk.start for chunk in chunks] == [30, 31, 32]
    assert chunks[0].source_size == (336, 448)


def test_at_other_rates_the_moments_are_the_same():
    smooth, plain = (open_source(f"synthetic:match?scale=1&fps={fps}", size=(84, 112), duration=5.0) for fps in (12, 2))
    with smooth, plain:
        for a, b in zip(smooth, plain, strict=True):
            np.testing.assert_array_equal(a.frames, b.frames)


def test_in_real_time_it_keeps_the_time():
    begin = time.monotonic()
    with open_source("synthetic:match?minutes=0.034", pace="realtime") as source:
        assert [chunk.start for chunk in source] == [0.0, 1.0]
    assert 1.9 < time.monotonic() - begin < 8


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("synthetic:chess", "is not known"),
        ("synthetic:match?sed=3", "has no parameter 'sed'"),
        ("synthetic:match?seed=x", "seed='x' is no number"),
        ("synthetic:match?seed=-1", "the seed of a match is -1"),
        ("synthetic:match?minutes=0", "expected more than 0"),
        ("synthetic:match?minutes=nan", "expected more than 0"),
        ("synthetic:match?scale=0", "the scale of a match is 0"),
        ("synthetic:match?fps=3", "multiple of 2"),
    ],
)
def test_specs_that_are_not_understood_are_named(spec, sentence):
    with pytest.raises(SourceError, match=sentence):
        open_source(spec)
