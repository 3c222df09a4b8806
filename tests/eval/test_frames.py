"""What may be seen before a moment: frame n of these clips stands on screen from n / 2 s on."""

import math
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from svlm_jax.errors import SourceError
from svlm_jax.eval import frames
from svlm_jax.eval.frames import Video
from svlm_jax.video.chunk import Chunk
from tests import clips
from tests.eval import sets


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return Video(sets.clip(tmp_path_factory.mktemp("frames") / "a.mp4"))


def numbers(chunk):
    return [clips.number(frame) for frame in chunk.frames]


@pytest.mark.parametrize(
    ("end", "shown"),
    [
        (3.0, [[0, 1], [2, 3], [4, 5]]),
        (2.5, [[0, 1], [2, 3], [4, 4]]),  # frame 5 comes at 2.5 s, which is not before it
        (2.6, [[0, 1], [2, 3], [4, 5]]),
        (2.0, [[0, 1], [2, 3]]),
        (0.3, [[0, 0]]),
        (0.0, []),
    ],
)
def test_seconds_end_before_the_moment(video, end, shown):
    assert [numbers(chunk) for chunk in frames.seconds(video, 0.0, end, fps=2.0)] == shown


def test_seconds_begin_and_go_on_to_the_end(video):
    chunks = list(frames.seconds(video, 5.0, math.inf, fps=2.0))
    assert [numbers(chunk) for chunk in chunks] == [[10, 11], [12, 13], [14, 15]]
    assert (chunks[0].start, chunks[-1].end) == (5.0, 8.0)


def test_slow_streams_have_longer_chunks(video):
    (first, second) = frames.seconds(video, 0.0, 8.0, fps=0.5)
    assert (numbers(first), first.end, numbers(second)) == ([0, 4], 4.0, [8, 12])


@pytest.mark.parametrize("end", [0.4, 1.0, 2.5, 3.7, 8.0, 99.0, math.inf])
def test_spread_frames_reach_from_the_start_to_just_before_the_moment(video, end):
    chunk = frames.spread(video, 0.0, end, most=8, fps=2.0)
    last = math.ceil(min(end, 8.0) * 2 - 1e-9) - 1
    seen = numbers(chunk)
    assert seen[0] == 0 and seen[-1] == last and seen == sorted(seen)
    assert len(seen) == min(8, max(2, 2 * ((last + 1) // 2)))


def test_the_last_frames(video):
    assert numbers(frames.last(video, 0.0, 6.0, count=4, fps=1.0)) == [5, 7, 9, 11]
    assert numbers(frames.last(video, 0.0, math.inf, count=4, fps=2.0)) == [12, 13, 14, 15]
    assert numbers(frames.last(video, 4.0, 6.0, count=8, fps=2.0)) == [8, 9, 10, 11]  # no further back than allowed
    assert numbers(frames.last(video, 0.0, 0.7, count=4, fps=1.0)) == [0, 1]


def test_nothing_to_see(video):
    assert frames.spread(video, 0.0, 0.0, most=8, fps=2.0) is None
    assert frames.last(video, 3.0, 3.0, count=4, fps=1.0) is None


def test_a_chunk_is_cut_by_repeating():
    chunk = Chunk(np.arange(4, dtype=np.uint8)[:, None, None, None], 10.0, 12.0)
    assert frames.cut(chunk, 12.0) is chunk
    assert frames.cut(chunk, 11.1).frames.ravel().tolist() == [0, 1, 2, 2]
    assert frames.cut(chunk, 10.0) is None


def test_a_folder_of_pictures(tmp_path):
    for i in range(12):
        Image.fromarray(clips.picture(i)).save(tmp_path / f"{i:05d}.png")
    pictures = Video(tmp_path, rate=3.0)
    assert pictures.span() == (0.0, 4.0)
    assert numbers(frames.spread(pictures, 1.0, 3.0, most=2, fps=3.0)) == [3, 8]
    with pytest.raises(SourceError, match="is a folder"):
        Video(tmp_path).span()
    with pytest.raises(SourceError, match="no pictures"):
        (tmp_path / "none").mkdir()
        Video(tmp_path / "none", rate=3.0).span()


def test_a_missing_video(tmp_path):
    with pytest.raises(SourceError, match="does not exist"):
        list(frames.seconds(Video(tmp_path / "gone.mp4"), 0.0, 3.0, fps=2.0))


def test_pictures_that_are_none_and_giants_are_sentences(tmp_path):
    none, large = "is no picture that can be decoded", "declares too many pixels"
    for content, why in ((b"no picture", none), (giant(7_000), large), (giant(60_000), large)):
        (tmp_path / "000.png").write_bytes(content)
        with pytest.raises(SourceError, match=why):
            list(frames.seconds(Video(tmp_path, rate=1.0), 0.0, 9.0, fps=2.0))


def giant(side):
    """A PNG of which there is little more than a header, which declares a large square."""
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = [struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (header, b"IDAT")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
