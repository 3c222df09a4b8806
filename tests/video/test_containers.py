"""What holds for every container: a table of tests, which docs/video.md shows. Clips show the number of each frame."""

import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from svlm_jax.video.source import open_source
from tests import clips
from tests.video.stamps import restamp_flv, restamp_mkv

RATE = 24
CODECS = {"avi": "mpeg4", "mpg": "mpeg2video"}
ALL = ("mp4", "mkv", "ts", "flv", "avi", "mpg", "h264", "hls")
# The columns of the table, and the containers that can hold such a thing.
CASES = {
    "frame_rate": ALL,
    "variable_rate": ("mp4", "mkv", "ts", "flv", "hls"),
    "late_start": ("mp4", "mkv", "ts", "flv", "mpg", "hls"),
    "splice": ("mp4", "mkv", "ts", "flv", "mpg", "h264", "hls"),
    "seek": ALL,
    "orientation": ("mp4", "mkv"),
    "several_streams": ("mp4", "mkv", "ts", "flv", "avi", "mpg", "hls"),
}


def each(column: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("container", CASES[column])


def draw(folder: Path, container: str, name: str = "clip", **options) -> Path:
    """A clip in a container; of HLS, its playlist."""
    if container == "hls":
        return playlist(folder / f"{name}.m3u8", [draw(folder, "ts", name, **options)])
    codec = {"codec": CODECS[container]} if container in CODECS else {}
    return clips.render(folder / f"{name}.{container}", **{"frames": 96, "rate": RATE, **codec, **options})


def playlist(path: Path, segments: list[Path], seconds: float = 4.0) -> Path:
    """An HLS playlist of segments that do not go on from one another."""
    entries = "#EXT-X-DISCONTINUITY\n".join(f"#EXTINF:{seconds},\n{segment.name}\n" for segment in segments)
    path.write_text(f"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:{seconds:g}\n{entries}#EXT-X-ENDLIST\n")
    return path


def seen(path: Path, **options) -> dict[float, list[int]]:
    with open_source(path, **options) as source:
        return {chunk.start: [clips.number(frame) for frame in chunk.frames] for chunk in source}


def regular(seconds: int, rate: float = RATE) -> dict[float, list[int]]:
    """What a video shows whose frames come at their rate."""
    return {float(s): [round(s * rate), int((s + 0.5) * rate + 0.5)] for s in range(seconds)}


@each("frame_rate")
def test_frame_rate(container: str, tmp_path: Path) -> None:
    for rate in (25, Fraction(30_000, 1001)):
        clip = draw(tmp_path, container, frames=int(2 * rate), rate=rate)
        shown = 25 if container == "h264" else rate  # a raw stream does not say its rate: FFmpeg takes 25
        assert list(seen(clip).items())[:2] == list(regular(2, float(shown)).items())


@each("variable_rate")
def test_variable_rate(container: str, tmp_path: Path) -> None:
    clip = draw(tmp_path, container, times=[0, 0.2, 0.7, 0.71, 3.4, 3.6, 4.48], gop=2)
    assert seen(clip) == {0: [0, 1], 1: [3, 3], 2: [3, 3], 3: [3, 4], 4: [5, 6]}


@each("variable_rate")
def test_a_still_of_a_minute_stays_a_minute(container: str, tmp_path: Path) -> None:
    times = [i / RATE for i in range(48)] + [62 + i / RATE for i in range(48)]
    got = seen(draw(tmp_path, container, times=times))
    assert list(got) == list(range(64))
    assert got[1.0] == [24, 36] and all(got[float(s)] == [47, 47] for s in range(2, 62)) and got[63.0] == [72, 84]


@each("late_start")
def test_late_start(container: str, tmp_path: Path) -> None:
    clip = draw(tmp_path, container, offset=2.0, sound=6.0)
    with open_source(clip) as source:
        assert 1.8 < source.info.begin <= 2.13 and source.info.duration == pytest.approx(4, abs=0.1)
    got = seen(clip)
    assert min(got) in (1.0, 2.0) and max(got) in (5.0, 6.0)  # the tone begins up to 0.13 s before or behind its time
    assert abs(got[3.0][0] - 24) <= 4
    assert seen(clip, start=3.0)[3.0] == got[3.0]


@each("splice")
def test_splice(container: str, tmp_path: Path) -> None:
    """The clock begins anew, or jumps far ahead, in the middle: the picture goes on."""
    if container == "mp4":  # no clock, but durations: one of them cannot be paid for
        clip = draw(tmp_path, "mp4", times=[i / RATE + 20_000 * (i >= 48) for i in range(96)])
        assert seen(clip) == regular(4)
        return
    if container in ("mkv", "flv"):
        change: Callable[[int, float], float] = lambda number, time: time - 2 * (number >= 48)  # noqa: E731
        restamp = restamp_mkv if container == "mkv" else restamp_flv
        assert seen(restamp(draw(tmp_path, container), change)) == regular(4)
        return
    kind = "ts" if container == "hls" else container
    rate = 25 if container == "h264" else RATE
    for offset in (0.0, 700.0) if kind == "ts" else (0.0,):
        parts = [
            draw(tmp_path, kind, "a", frames=2 * rate, rate=rate),
            draw(tmp_path, kind, "b", frames=2 * rate, rate=rate, first=2 * rate, offset=offset),
        ]
        joined = tmp_path / f"joined.{container}"
        clip = playlist(tmp_path / "joined.m3u8", parts, 2.0) if container == "hls" else clips.concatenate(joined, parts)
        assert seen(clip) == regular(4, rate)
        assert seen(clip, start=3.0) == {3.0: regular(4, rate)[3.0]}


@each("seek")
def test_seek(container: str, tmp_path: Path) -> None:
    b_frames = {"b_frames": 2} if container not in ("h264", "flv") else {}
    clip = draw(tmp_path, container, frames=144, gop=30, **b_frames)
    read = seen(clip)
    assert len(read) == 6
    for start in (1.0, 3.0, 5.0):
        assert seen(clip, start=start) == {second: shown for second, shown in read.items() if second >= start}


UNIT = 1 << 16
MATRICES = {  # (a, b, c, d): the pixel at column p, row q goes to column a p + c q, row b p + d q
    "upright": (1, 0, 0, 1),
    "mirrored": (-1, 0, 0, 1),
    "flipped": (1, 0, 0, -1),
    "turned by 180": (-1, 0, 0, -1),
    "transposed": (0, 1, 1, 0),
    "turned right": (0, 1, -1, 0),
    "turned left": (0, -1, 1, 0),
    "transversed": (0, -1, -1, 0),
}


@each("orientation")
@pytest.mark.parametrize("way", MATRICES)
def test_orientation(container: str, way: str, tmp_path: Path) -> None:
    a, b, c, d = MATRICES[way]
    matrix = [a * UNIT, b * UNIT, 0, c * UNIT, d * UNIT, 0, 0, 0, 1 << 30]
    clip = draw(tmp_path, container, frames=24, size=(96, 128), matrix=matrix)
    stored = clips.picture(0, 96, 128)
    rows, columns = np.mgrid[:96, :128]
    p, q = a * columns + c * rows, b * columns + d * rows
    shown = np.empty((96, 128, 3) if a else (128, 96, 3), np.uint8)
    shown[q - q.min(), p - p.min()] = stored
    height, width = shown.shape[0] // 4 * 28, shown.shape[1] // 4 * 28
    with open_source(clip, size=(height, width)) as source:
        assert (source.info.height, source.info.width) == shown.shape[:2]
        frame = next(source).frames[0].transpose(1, 2, 0)
    blocks = frame.reshape(shown.shape[0] // 4, 28, shown.shape[1] // 4, 28, 3).mean((1, 3))
    wanted = shown.reshape(shown.shape[0] // 4, 4, shown.shape[1] // 4, 4, 3).mean((1, 3))
    assert np.abs(blocks - wanted).mean() < 12


@each("several_streams")
def test_several_streams(container: str, tmp_path: Path) -> None:
    small, large = (56, 98), (112, 196)
    if container == "hls":
        for name, size in (("small", small), ("large", large)):
            draw(tmp_path, "hls", name, size=size)
        variants = "".join(
            f"#EXT-X-STREAM-INF:BANDWIDTH={rate},RESOLUTION={w}x{h}\n{name}.m3u8\n"
            for name, rate, (h, w) in (("small", 100_000, small), ("large", 900_000, large))
        )
        (tmp_path / "master.m3u8").write_text(f"#EXTM3U\n{variants}")
        with open_source(tmp_path / "master.m3u8") as source:
            assert (source.info.height, source.info.width) == large
        with open_source(tmp_path / "master.m3u8", variant=56) as source:
            assert (source.info.height, source.info.width) == small
        return
    for default in (0, 1) if container in ("mkv", "mp4") else (None,):
        clip = _two_streams(tmp_path / f"clip.{container}", (small, large), default)
        with open_source(clip) as source:
            assert (source.info.height, source.info.width) == (small if default == 0 else large)


def _two_streams(path: Path, sizes: tuple[tuple[int, int], ...], default: int | None) -> Path:
    with av.open(str(path), "w") as container:
        streams = []
        for number, (height, width) in enumerate(sizes):
            stream = container.add_stream("libx264", rate=RATE, options={"preset": "ultrafast"})
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            if default is not None:
                stream.disposition = av.stream.Disposition.default if number == default else av.stream.Disposition(0)
            streams.append(stream)
        for i in range(24):
            for stream, (height, width) in zip(streams, sizes, strict=True):
                frame = av.VideoFrame.from_ndarray(clips.picture(i, height, width), format="rgb24")
                frame.pts, frame.time_base = i, Fraction(1, RATE)
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode())
    return path


def test_the_table_in_the_docs_names_these_tests() -> None:
    text = (Path(__file__).parents[2] / "docs" / "video.md").read_text()
    rows = re.findall(r"^\| (\w+) \| (.*) \|$", text, re.MULTILINE)
    table = {row: [cell.strip("`") for cell in cells.split(" | ")] for row, cells in rows if row in ALL}
    assert table == {
        container: [f"{column}[{container}]" if container in held else "-" for column, held in CASES.items()]
        for container in ALL
    }
    assert all(f"test_{column}" in globals() for column in CASES)
