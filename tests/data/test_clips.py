"""Frames of annotated clips: the same as a stream of the video would give."""

import dataclasses

import numpy as np
import pytest

from svlm_jax.data.annotations import Annotation, Word
from svlm_jax.data.chunks import ChunkSettings
from svlm_jax.data.clips import inside, letterbox, nearest, read_clip, source_size
from svlm_jax.errors import DataError, SourceError
from svlm_jax.models.resize_rule import PUBLISHED
from svlm_jax.video.resize import smart_resize
from svlm_jax.video.source import open_source
from tests import clips


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return clips.render(tmp_path_factory.mktemp("clips") / "a.mp4", frames=12 * 8, rate=12)


def clip(start, end):
    return Annotation("a.mp4", start, end, (Word(start, start + 0.5, "hm"),))


def test_frames_are_those_of_the_stream(video):
    with open_source(video) as source:
        watched = np.stack([chunk.frames for chunk in source])
    read = read_clip(video, clip(2.0, 6.0), ChunkSettings())
    assert read.dtype == np.uint8 and read.shape == (4, 2, 3, *watched.shape[-2:])
    np.testing.assert_array_equal(read, watched[2:6])
    assert [clips.number(frame) for second in read for frame in second] == [24, 30, 36, 42, 48, 54, 60, 66]


def test_sizes(video):
    assert source_size(video) == (112, 196)
    assert read_clip(video, clip(0.0, 1.0), ChunkSettings(), dataclasses.replace(PUBLISHED, size=(56, 84))).shape == (
        1,
        2,
        3,
        56,
        84,
    )
    for rule in (PUBLISHED, dataclasses.replace(PUBLISHED, min_pixels=784, max_pixels=112 * 196)):
        assert read_clip(video, clip(0.0, 2.0), ChunkSettings(), rule).shape[-2:] == smart_resize(112, 196, rule.for_clip(4))
    # A budget over the whole clip: the published training sees 64 s at half the pixels.
    training = dataclasses.replace(PUBLISHED, total_pixels=19_267_584)
    assert smart_resize(720, 1280, training.for_clip(48)) == (560, 1008) and training.for_clip(128).max_pixels == 301_056


def test_a_clip_that_runs_a_little_over_repeats_the_last_frame(video):
    read = read_clip(video, clip(5.0, 9.0), ChunkSettings())
    assert [clips.number(frame) for frame in read[3]] == [clips.number(read[2][-1])] * 2


def test_a_video_that_is_missing_or_too_short_is_named(video, tmp_path):
    with pytest.raises(SourceError, match="does not exist"):
        read_clip(tmp_path / "none.mp4", clip(0.0, 1.0), ChunkSettings())
    with pytest.raises(DataError, match=r"a.mp4 ends 2 s before its clip from 6 to 10 s does"):
        read_clip(video, clip(6.0, 10.0), ChunkSettings())
    with pytest.raises(SourceError, match="ends at 8"):
        read_clip(video, clip(20.0, 24.0), ChunkSettings())


def test_the_nearest_size_has_the_proportions_of_the_picture():
    sizes = [(364, 644), (560, 1008), (476, 644), (840, 476)]
    assert [nearest(size, sizes) for size in sizes] == sizes
    # 400p, a small and a large 4:3, a tall phone, a square (which has none of its own)
    assert nearest((392, 700), sizes) == (364, 644)
    assert nearest((252, 336), sizes) == nearest((672, 896), sizes) == (476, 644)
    assert nearest((1092, 504), sizes) == (840, 476)
    assert nearest((756, 756), sizes) == (476, 644)


def test_pictures_keep_their_proportions_between_black_bars():
    assert inside((672, 896), (476, 644), 28) == (476, 644)
    assert inside((1008, 560), (560, 1008), 28) == (560, 308)
    assert inside((504, 1176), (560, 1008), 28) == (420, 1008)
    drawn = letterbox(np.full((2, 3, 28, 56), 9, np.uint8), (84, 56))
    assert drawn.shape == (2, 3, 84, 56) and drawn.dtype == np.uint8
    assert (drawn[:, :, 28:56] == 9).all() and not drawn[:, :, :28].any() and not drawn[:, :, 56:].any()
