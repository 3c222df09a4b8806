"""The shared video cases, each with what its README calls right. Their frames carry their number as a bar code."""

import contextlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from svlm_jax.data.annotations import Annotation
from svlm_jax.data.chunks import ChunkSettings
from svlm_jax.data.clips import read_clip
from svlm_jax.errors import SourceError
from svlm_jax.eval.frames import Video, spread
from svlm_jax.video.reader import VideoReader
from svlm_jax.video.source import open_source
from tests.cases import cases
from tests.video.peers import web_server, whole
from tests.video.test_opening import breaking

BITS = 12


def number(frame: np.ndarray) -> int:
    """The number in the bar code of a frame, uint8 (3, height, width)."""
    _, height, width = frame.shape
    row = frame[:, int(height * 0.42) : int(height * 0.58)].mean((0, 1))
    cell = width / (BITS + 4)
    return sum(1 << bit for bit in range(BITS) if row[int((bit + 2.3) * cell) : int((bit + 2.7) * cell)].mean() > 125)


def seen(path: Path | str, **options) -> dict[float, list[int]]:
    with open_source(path, **options) as source:
        return {chunk.start: [number(frame) for frame in chunk.frames] for chunk in source}


def regular(seconds: int, first: int = 0) -> dict[float, list[int]]:
    return {float(s): [first + 25 * s, first + 25 * s + 13] for s in range(seconds)}


def test_avi_bframes_start() -> None:
    clip = cases("video") / "avi_bframes_start" / "x.avi"
    assert seen(clip) == regular(4)
    assert seen(clip, start=2.0) == {s: n for s, n in regular(4).items() if s >= 2}


@pytest.mark.parametrize("name", ["fwd.ts", "disc.m3u8"])
def test_clock_jumps_forward(name: str) -> None:
    got = seen(cases("video") / "clock_jumps_forward" / name)
    assert list(got) == list(range(8))
    assert [numbers[0] for numbers in got.values()] in ([25 * s for s in range(8)], [0, 25, 50, 75, 1000, 1025, 1050, 1075])


def test_encrypted_mp4_message() -> None:
    with pytest.raises(SourceError, match="encrypted: no frame of it can be decoded"):
        open_source(cases("video") / "encrypted_mp4_message" / "enc.mp4")


@pytest.mark.parametrize("name", ["one.mkv", "subs.mkv", "live.webm", "r.h264"])
def test_evaluation_duration(name: str) -> None:
    chunk = spread(Video(cases("video") / "evaluation_duration" / name), 0.0, 1e9, most=8, fps=2.0)
    assert chunk is not None
    assert [number(frame) for frame in chunk.frames] == pytest.approx(np.linspace(0, 99, 8), abs=1)


def test_first_of_several_video_streams() -> None:
    with open_source(cases("video") / "first_of_several_video_streams" / "master.m3u8") as source:
        assert (source.info.height, source.info.width) == (480, 640)
        assert len(list(source)) == 6


@pytest.mark.parametrize("name", ["gop.mp4", "mid.ts"])
def test_http_break_without_connection_close(name: str) -> None:
    data = (cases("video") / "http_break_without_connection_close" / name).read_bytes()
    with web_server(breaking(data, 30_000)) as root:
        assert seen(f"{root}/{name}") == regular(20)


def test_http_file_without_duration() -> None:
    clip = cases("video") / "http_file_without_duration" / "live30.webm"
    with web_server(whole(clip.read_bytes())) as root:
        begin = time.monotonic()
        assert seen(f"{root}/{clip.name}") == regular(30) and time.monotonic() - begin < 25
        assert (
            seen(f"{root}/{clip.name}", start=5.0) == seen(clip, start=5.0) == {s: n for s, n in regular(30).items() if s >= 5}
        )


def test_latin1_metadata() -> None:
    clip = cases("video") / "latin1_metadata" / "latin1_title.avi"
    with contextlib.closing(VideoReader(f"file:{clip}", clip.name)) as reader:
        assert sum(1 for _ in reader) == 38


MATRICES: dict[str, tuple[tuple[int, ...], Callable[[np.ndarray], np.ndarray]]] = {
    "hflip": ((-1, 0, 0, 1, 320, 0), lambda p: p[:, ::-1]),
    "vflip": ((1, 0, 0, -1, 0, 240), lambda p: p[::-1]),
    "transpose": ((0, 1, 1, 0, 0, 0), lambda p: p.swapaxes(0, 1)),
    "transverse": ((0, -1, -1, 0, 240, 320), lambda p: p[::-1, ::-1].swapaxes(0, 1)),
}


@pytest.mark.parametrize("name", MATRICES)
def test_mirrored_display_matrix(name: str, tmp_path: Path) -> None:
    (a, b, c, d, tx, ty), turn = MATRICES[name]
    base = cases("video") / "mirrored_display_matrix" / "base.mp4"
    data = bytearray(base.read_bytes())
    at = data.index(b"tkhd") + 4
    at += 4 + (20 if data[at] == 0 else 32) + 16
    words = [a << 16, b << 16, 0, c << 16, d << 16, 0, tx << 16, ty << 16, 1 << 30]
    data[at : at + 36] = b"".join(word.to_bytes(4, signed=True) for word in words)
    (tmp_path / "clip.mp4").write_bytes(data)
    with open_source(base) as plain, open_source(tmp_path / "clip.mp4") as turned:
        shown = next(turned).frames[0]
        upright = turn(next(plain).frames[0].transpose(1, 2, 0))
    wanted = np.asarray(Image.fromarray(np.ascontiguousarray(upright)).resize(shown.shape[:0:-1]), np.float32)
    assert np.abs(shown.transpose(1, 2, 0) - wanted).mean() < 6


@pytest.mark.parametrize("start", [0.0, 3.0])
def test_pipe_opened_twice(start: float, tmp_path: Path) -> None:
    clip, pipe = cases("video") / "pipe_opened_twice" / "eight.ts", tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(clip.read_bytes()))
    writer.start()
    got = seen(pipe, start=start)
    writer.join(5)
    assert got == {s: n for s, n in seen(clip).items() if s >= start} == {s: n for s, n in regular(8).items() if s >= start}


@pytest.mark.parametrize("name", ["jit.mkv", "bits.mp4"])
def test_stamps_go_back_a_little(name: str) -> None:
    got = seen(cases("video") / "stamps_go_back_a_little" / name)
    assert list(got) == list(range(20))
    whole_seconds = range(20) if name == "jit.mkv" else (*range(7), *range(12, 20))  # the middle of the other is damaged
    assert all(got[float(s)] == regular(20)[float(s)] for s in whole_seconds)


def test_stream_appears_midway() -> None:
    clip = cases("video") / "stream_appears_midway" / "bitflip.flv"
    with contextlib.closing(VideoReader(f"file:{clip}", clip.name)) as reader:
        assert sum(1 for _ in reader) == 82


@pytest.mark.parametrize(("name", "first"), [("subs.mkv", 0), ("delayed.mkv", 2)])
def test_truncated_false(name: str, first: int) -> None:
    assert list(seen(cases("video") / "truncated_false" / name)) == [first, first + 1, first + 2, first + 3]


def test_video_starts_late() -> None:
    clip = cases("video") / "video_starts_late" / "delayed.mp4"
    assert seen(clip) == {s + 2: n for s, n in regular(4).items()}
    frames = read_clip(clip, Annotation("delayed.mp4", 3.0, 5.0, ()), ChunkSettings())
    assert [[number(frame) for frame in turn] for turn in frames] == [[25, 38], [50, 63]]
