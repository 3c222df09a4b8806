"""Files and frames as chunks: which frames, which size, which times."""

import dataclasses
import gc
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import Colorspace

from svlm_jax.errors import ConfigError, SourceError
from svlm_jax.models.resize_rule import PUBLISHED
from svlm_jax.video.reader import VideoReader
from svlm_jax.video.source import FrameSource, Source, open_source, register_scheme
from tests.clips import concatenate, number, picture, render, upright

VIDEOS = Path(__file__).parents[2].parent / "shared" / "videos"


def numbers(source: Source) -> list[list[int]]:
    with source:
        return [[number(frame) for frame in chunk.frames] for chunk in source]


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (24, [[0, 12], [24, 36], [48, 60]]),
        (25, [[0, 13], [25, 38], [50, 63]]),
        (Fraction(30_000, 1001), [[0, 15], [30, 45], [60, 75]]),
        (30, [[0, 15], [30, 45], [60, 75]]),
        (60, [[0, 30], [60, 90], [120, 150]]),
    ],
)
def test_frames_by_time(tmp_path: Path, rate: Fraction | int, expected: list[list[int]]) -> None:
    clip = render(tmp_path / "clip.mp4", frames=int(3 * rate), rate=rate)
    assert numbers(open_source(clip)) == expected


@pytest.mark.parametrize(
    ("rate", "expected"), [(24, [[0, 12], [47, 47], [71, 71]]), (Fraction(30_000, 1001), [[0, 15], [29, 44], [59, 74]])]
)
def test_published_sampling(tmp_path: Path, rate: Fraction | int, expected: list[list[int]]) -> None:
    clip = render(tmp_path / "clip.mp4", frames=int(3 * rate), rate=rate)
    assert numbers(open_source(clip, sampling="published")) == expected


def test_other_rates_and_chunk_lengths(tmp_path: Path) -> None:
    clip = render(tmp_path / "clip.mp4", frames=96)
    assert numbers(open_source(clip, fps=8)) == [[24 * s + 3 * i for i in range(8)] for s in range(4)]
    assert numbers(open_source(clip, fps=1, chunk_seconds=2)) == [[0, 24], [48, 72]]
    with open_source(clip, fps=4, chunk_seconds=0.5) as source:
        assert [(chunk.start, chunk.end) for chunk in source] == [(i / 2, i / 2 + 0.5) for i in range(8)]


def test_chunks_say_what_they_are(tmp_path: Path) -> None:
    clip = render(tmp_path / "clip.mp4", frames=60, size=(360, 640))
    with open_source(clip) as source:
        assert (source.info.name, source.info.kind, source.info.live) == (str(clip), "file", False)
        assert (source.info.width, source.info.height, source.info.fps, source.info.duration) == (640, 360, 24, 2.5)
        chunks = list(source)
        assert next(source, None) is None
    assert [(chunk.start, chunk.end, chunk.lag, chunk.dropped) for chunk in chunks] == [(s, s + 1, 0, 0) for s in (0, 1, 2)]
    for chunk in chunks:
        assert chunk.frames.dtype == np.uint8 and chunk.frames.shape == (2, 3, 364, 644)
        assert chunk.frames.flags.c_contiguous
        assert chunk.source_size == (360, 640)
        assert chunk.read_ms > 0
    assert number(chunks[2].frames[1]) == 59  # padded with the last frame


@pytest.mark.parametrize("rotation", [90, -90, 180])
def test_rotation(tmp_path: Path, rotation: int) -> None:
    clip = render(tmp_path / "clip.mp4", frames=48, rotation=rotation)
    with open_source(clip) as source:
        size = (112, 196) if rotation == 180 else (196, 112)
        assert (source.info.height, source.info.width) == size
        for chunk in source:
            assert chunk.frames.shape[2:] == ((224, 392) if rotation == 180 else (392, 224))
            assert all(map(upright, chunk.frames))
            assert number(chunk.frames[1]) == 24 * chunk.start + 12


@pytest.mark.parametrize("container", ["mkv", "mp4", "ts"])
def test_time_zero_is_the_first_frame(tmp_path: Path, container: str) -> None:
    clip = render(tmp_path / f"clip.{container}", frames=48, offset=5.0)
    assert numbers(open_source(clip)) == [[0, 12], [24, 36]]


def test_variable_frame_rate(tmp_path: Path) -> None:
    clip = render(tmp_path / "clip.mkv", times=[0, 0.2, 0.7, 0.71, 3.4, 3.6, 5])
    assert numbers(open_source(clip)) == [[0, 1], [3, 3], [3, 3], [3, 4], [5, 5], [6, 6]]


def test_a_stream_without_time_stamps_follows_its_rate(tmp_path: Path) -> None:
    clip = render(tmp_path / "clip.h264", frames=60)  # FFmpeg takes 25 frames a second for raw H.264
    assert numbers(open_source(clip))[0][0] == 0
    assert numbers(open_source(clip))[1] in ([24, 36], [25, 38])


@pytest.mark.parametrize("seconds", [1.0, 9.0], ids=["shorter", "longer"])
def test_sound_is_passed_over(tmp_path: Path, seconds: float) -> None:
    clip = render(tmp_path / "clip.mp4", frames=48, sound=seconds)
    assert numbers(open_source(clip)) == [[0, 12], [24, 36]]


@pytest.mark.parametrize(("size", "format"), [((111, 197), "yuv444p"), ((112, 196), "yuv420p10le"), ((112, 196), "gray")])
def test_odd_sizes_and_pixel_formats(tmp_path: Path, size: tuple[int, int], format: str) -> None:
    clip = render(tmp_path / "clip.mkv", frames=24, size=size, pixel_format=format)
    with open_source(clip) as source:
        (chunk,) = source
    assert [number(frame) for frame in chunk.frames] == [0, 12]
    assert chunk.source_size == size and chunk.frames.shape[2:] == (224, 392)
    assert format == "gray" or upright(chunk.frames[0])


@pytest.mark.parametrize("colorspace", [None, Colorspace.ITU709])
def test_colours_follow_the_tagged_matrix(tmp_path: Path, colorspace: int | None) -> None:
    clip = render(tmp_path / "clip.mkv", frames=24, colorspace=colorspace)
    with open_source(clip) as source:
        frame = next(source).frames[0].astype(int)
    for column, colour in ((100, (220, 30, 30)), (300, (30, 30, 220))):
        assert np.abs(frame[:, 180, column] - colour).max() <= 6


def test_pixels_that_are_not_square(tmp_path: Path) -> None:
    clip = render(tmp_path / "clip.mp4", frames=24, aspect=Fraction(3, 2))
    with open_source(clip) as source:
        chunk = next(source)
    assert chunk.source_size == (112, 294)
    assert chunk.frames.shape[2:] == (196, 476)


@pytest.mark.parametrize("aspect", [Fraction(40), Fraction(1, 40)])
def test_pixels_of_an_absurd_shape_count_as_square(aspect: Fraction, tmp_path: Path) -> None:
    clip = render(tmp_path / "clip.ts", frames=8, rate=4, aspect=aspect)
    with av.open(str(clip)) as container:
        assert container.streams.video[0].sample_aspect_ratio == aspect
    with open_source(clip) as source:
        assert next(source).source_size == (112, 196)


def test_a_closed_source_reads_no_further(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long sound behind a short picture completes no chunk that could be refused."""
    clip = render(tmp_path / "clip.mkv", frames=8, rate=4, sound=60.0)
    read, closing, demux = 0, threading.Event(), VideoReader._demux

    def slow(reader: VideoReader) -> Iterator[av.Packet]:
        nonlocal read
        for packet in demux(reader):
            if threading.current_thread().name == "svlm-decode":
                read += 1
                if read > 60:  # behind the picture
                    closing.set()
                    time.sleep(0.05)
            yield packet

    monkeypatch.setattr(VideoReader, "_demux", slow)
    source = open_source(clip)
    assert closing.wait(10)
    source.close()
    assert not source._thread.is_alive()
    assert read < 200


def test_resolution_change(tmp_path: Path) -> None:
    parts = [
        render(tmp_path / "1.ts", frames=36, size=(180, 320)),
        render(tmp_path / "2.ts", frames=36, size=(360, 640), first=100),
        render(tmp_path / "3.ts", frames=24, size=(448, 448), first=200),
        render(tmp_path / "4.ts", frames=24, size=(112, 196), first=300),
    ]
    clip = concatenate(tmp_path / "clip.ts", parts)
    with open_source(clip, resize=dataclasses.replace(PUBLISHED, min_pixels=28 * 28)) as source:
        chunks = list(source)
    assert [[number(frame) for frame in chunk.frames] for chunk in chunks] == [
        [0, 12],
        [24, 100],
        [112, 124],
        [200, 212],
        [300, 312],
    ]
    sizes = [chunk.frames.shape[2:] for chunk in chunks]
    # Twice the size keeps the first; another aspect fits into as many tokens; smaller stays smaller.
    assert sizes == [(168, 308)] * 3 + [(224, 224), (112, 196)]
    assert [chunk.source_size for chunk in chunks] == [(180, 320), (180, 320), (360, 640), (448, 448), (112, 196)]


def test_one_size_for_all(tmp_path: Path) -> None:
    clip = concatenate(
        tmp_path / "clip.ts", [render(tmp_path / "1.ts", frames=24), render(tmp_path / "2.ts", frames=24, size=(196, 112))]
    )
    with open_source(clip, size=(84, 168)) as source:
        assert [chunk.frames.shape for chunk in source] == [(2, 3, 84, 168)] * 2


@pytest.mark.parametrize("container", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("gop", [12, 240])
def test_start_and_duration(tmp_path: Path, container: str, gop: int) -> None:
    clip = render(tmp_path / f"clip.{container}", frames=240, gop=gop, offset=2.0)
    with open_source(clip, start=3.25, duration=1.5) as source:
        chunks = list(source)
    assert [(chunk.start, chunk.end) for chunk in chunks] == [(3.25, 4.25), (4.25, 5.25)]
    assert [[number(frame) for frame in chunk.frames] for chunk in chunks] == [[78, 90], [102, 114]]


@pytest.mark.parametrize("container", ["mp4", "mkv", "ts"])
def test_frames_that_are_stored_out_of_order(tmp_path: Path, container: str) -> None:
    clip = render(tmp_path / f"clip.{container}", frames=240, gop=48, b_frames=3)
    assert numbers(open_source(clip)) == [[24 * s, 24 * s + 12] for s in range(10)]
    assert numbers(open_source(clip, start=3.25, duration=2)) == [[78, 90], [102, 114]]


def test_a_spliced_recording_goes_on(tmp_path: Path) -> None:
    parts = [render(tmp_path / f"{i}.ts", frames=24, first=100 * i) for i in range(3)]
    assert numbers(open_source(concatenate(tmp_path / "clip.ts", parts))) == [[0, 12], [100, 112], [200, 212]]


def test_a_damaged_middle_is_passed_over(tmp_path: Path) -> None:
    clip = render(tmp_path / "clip.ts", frames=96)
    data = bytearray(clip.read_bytes())
    middle = len(data) // 2 // 188 * 188
    data[middle : middle + 1880] = np.random.default_rng(0).bytes(1880)
    clip.write_bytes(data)
    got = numbers(open_source(clip))
    assert len(got) == 4
    assert got[0] == [0, 12] and got[3] == [72, 84]


def frames(count: int, rate: float = 24, reuse: bool = False) -> Iterator[tuple[float, np.ndarray]]:
    buffer = picture(0)
    for i in range(count):
        if reuse:
            buffer[:] = picture(i)
        yield 50 + i / rate, buffer if reuse else picture(i)


@pytest.mark.parametrize("reuse", [False, True])
def test_frames_of_ones_own(reuse: bool) -> None:
    source = open_source(frames(60, reuse=reuse))
    assert source.info.kind == "frames" and not source.info.live
    assert numbers(source) == [[0, 12], [24, 36], [48, 59]]


def test_registered_schemes() -> None:
    register_scheme("counting", lambda rest: frames(int(rest)))
    assert numbers(open_source("counting:48")) == [[0, 12], [24, 36]]


def test_pushed_frames_wait_for_the_session() -> None:
    pushed = FrameSource(live=False, maxsize=4)

    def feed() -> None:
        for stamp, frame in frames(72):
            pushed.push(frame, stamp)
        pushed.end()

    feeder = threading.Thread(target=feed)
    feeder.start()
    assert numbers(open_source(pushed)) == [[0, 12], [24, 36], [48, 60]]
    feeder.join()


def test_closing_a_source_ends_what_is_pushed() -> None:
    pushed = FrameSource()
    source = open_source(pushed)
    begin = time.monotonic()
    source.close()
    assert time.monotonic() - begin < 1.5
    assert next(source, None) is None
    with pytest.raises(SourceError, match="ended"):
        pushed.push(picture(0))


def test_memory_is_bounded_by_the_buffer() -> None:
    made = 0

    def endless() -> Iterator[tuple[float, np.ndarray]]:
        nonlocal made
        frame = picture(7, 56, 56)
        for i in range(10_000):
            made = i
            yield i / 10, frame

    with open_source(endless(), size=(28, 28), buffer=2) as source:
        assert next(source).start == 0
        time.sleep(0.3)
        # One handed out, two in the queue, one in the decoder's hands.
        assert made <= 10 * 5
        assert sum(1 for _ in zip(range(20), source, strict=False)) == 20
        time.sleep(0.3)
        assert made <= 10 * 26


def test_a_source_that_nobody_holds_stops_decoding(tmp_path: Path) -> None:
    clip = render(tmp_path / "clip.mp4", frames=240)
    before = {thread for thread in threading.enumerate() if thread.name == "svlm-decode"}
    source = open_source(clip)
    next(source)
    (thread,) = {thread for thread in threading.enumerate() if thread.name == "svlm-decode"} - before
    del source
    gc.collect()
    thread.join(5)
    assert not thread.is_alive()


def test_real_time_plays_at_the_speed_of_the_video(tmp_path: Path) -> None:
    clip = render(tmp_path / "clip.mp4", frames=48)
    begin = time.monotonic()
    with open_source(clip, fps=8, chunk_seconds=0.25, pace="realtime") as source:
        next(source)
        assert time.monotonic() - begin >= 0.2
        chunks = list(source)
    assert 1.9 <= time.monotonic() - begin < 6
    assert all(chunk.lag >= 0 for chunk in chunks)


def test_a_slow_session_skips_and_is_told(tmp_path: Path) -> None:
    clip = render(tmp_path / "clip.mp4", frames=96)
    with open_source(clip, fps=8, chunk_seconds=0.25, pace="realtime", behind="drop") as source:
        first = next(source)
        time.sleep(1.6)
        second = next(source)
    assert (first.start, first.dropped) == (0, 0)
    assert second.start >= 1.0
    assert second.dropped == pytest.approx(second.start - first.end)
    assert number(second.frames[0]) == round(second.start * 24)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fps": 3}, "makes 3 frames a chunk"),
        ({"fps": 2, "chunk_seconds": 0.3}, "makes 0.6 frames"),
        ({"fps": 0}, "fps=0"),
        ({"chunk_seconds": -1}, "chunk_seconds=-1"),
        ({"pace": "slow"}, "pace='slow' .* fast, realtime"),
        ({"behind": "skip"}, "behind='skip' .* drop, merge, wait"),
        ({"sampling": "random"}, "sampling='random'"),
        ({"start": -1}, "start=-1"),
        ({"duration": 0}, "duration=0"),
        ({"buffer": 0}, "buffer=0"),
        ({"size": (30, 28)}, "size=30x28 .* 28"),
    ],
)
def test_settings_that_cannot_work(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_source(frames(2), **settings)


@pytest.mark.skipif(not VIDEOS.is_dir(), reason="needs the shared clips")
@pytest.mark.parametrize(
    ("name", "chunks", "size", "seconds"),
    [
        ("bbb_480p_30s.mp4", 30, (476, 840), 30.0),
        ("basketball.mp4", 8, (364, 644), 7.143),
        ("car-detection.mp4", 31, (420, 756), 30.16),
        ("friday.mp4", 7, (476, 644), 6.166),
        ("rotate-buck-bunny.mp4", 2, (1008, 560), 1.875),
    ],
)
def test_real_clips(name: str, chunks: int, size: tuple[int, int], seconds: float) -> None:
    with open_source(VIDEOS / name) as source:
        assert source.info.duration == pytest.approx(seconds, abs=0.01)
        got = list(source)
    assert [chunk.start for chunk in got] == list(range(chunks))
    assert {chunk.frames.shape for chunk in got} == {(2, 3, *size)}


@pytest.mark.skipif(not VIDEOS.is_dir(), reason="needs the shared clips")
def test_time_stamps_count_not_the_header() -> None:
    # The header of this clip says 26.27 frames per second, its frames are 33.37 ms apart.
    with open_source(VIDEOS / "basketball.mp4", fps=30, duration=3) as by_time:
        frames = np.concatenate([chunk.frames for chunk in by_time])
    with open_source(VIDEOS / "basketball.mp4", duration=3) as source:
        for chunk in source:
            for i, frame in enumerate(chunk.frames):
                assert np.array_equal(frame, frames[round(30 * (chunk.start + i / 2))])


def test_a_closed_reader_gives_back_what_ffmpeg_holds(tmp_path: Path) -> None:
    """At once, and not when Python happens to look for circles."""
    kinds = (av.codec.context.CodecContext, av.container.InputContainer)

    def held() -> list[object]:
        return [thing for thing in gc.get_objects() if issubclass(type(thing), kinds)]

    def new() -> int:
        """Those that were not there before; what other tests left may go at any time."""
        return len({id(thing) for thing in held()} - {id(thing) for thing in before})

    paths = [render(tmp_path / f"clip.{container}", frames=48, sound=2.0) for container in ("mp4", "ts")]
    gc.collect()
    gc.disable()
    try:
        before = held()
        for path in paths:
            for start in (0.0, 1.0):
                reader = VideoReader(f"file:{path}", path.name, start=start, listen=True)
                next(iter(reader))
                assert new() > 0
                reader.close()
                reader.close()
                with open_source(path, start=start) as source:
                    next(source)
                del reader, source
                assert new() == 0
    finally:
        gc.enable()
