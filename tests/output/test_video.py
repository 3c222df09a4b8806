"""The captioned copy: every picture, its time and the sound of the original, captions where they were spoken, nothing else."""

import contextlib
import itertools
import logging
import resource
import signal
import subprocess
import sys
import textwrap
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from svlm_jax.errors import OutputError, SourceError
from svlm_jax.host.standard_streams import is_reader_gone
from svlm_jax.output import CaptionedVideo
from svlm_jax.output.mp4 import Look, Mp4Writer
from svlm_jax.output.overlay import draw_caption
from tests import clips
from tests.output.sink_helpers import answer, caption, decode, sound_seconds
from tests.video.test_containers import MATRICES, UNIT

VIDEOS = Path(__file__).parents[3] / "shared" / "videos"
WORDS = "What a goal"
DRAWN = 90  # grey levels that letters differ by at least somewhere; compression stays far below


def captioned(out, original, captions, frames=None):
    with CaptionedVideo(out, original) as sink:
        for item in captions:
            sink.write(item, frames)
    return decode(out)


def difference(before, after):
    return np.abs(before.astype(int) - after).max(-1)


def numbers(pictures):
    return [clips.number(picture.transpose(2, 0, 1)) for picture in pictures]


def test_captions_appear_where_they_were_spoken_and_nowhere_else(tmp_path):
    original = clips.render(tmp_path / "a.mp4", frames=100, rate=25, size=(240, 320), sound=4.0)
    times, before = decode(original)
    spoken = [caption(0.0), caption(1.0, WORDS), caption(2.0), caption(3.0, WORDS)]
    copied, after = captioned(tmp_path / "b.mp4", original, spoken)
    assert copied == pytest.approx(times, abs=2e-5) and after.shape == before.shape
    assert numbers(after) == list(range(100))
    change = difference(before, after)
    for index in range(100):
        low = change[index, 200:]
        assert (low.max() > DRAWN) == (25 <= index < 50 or index >= 75), index
        assert change[index, :190].max() < 40, index
    assert sound_seconds(tmp_path / "b.mp4") == pytest.approx(sound_seconds(original))
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert container.duration == pytest.approx(4_000_000, abs=1000)
        assert container.streams.video[0].codec_context.name == ("h264" if "libx264" in av.codecs_available else "mpeg4")


CLIPS = {
    "29.97 fps": {"rate": Fraction(30000, 1001)},
    "60 fps": {"rate": 60},
    "variable frame rate": {"times": [0, 0.04, 0.1, 0.5, 0.52, 0.9, 1.0, 1.7, 1.95, 2.3]},
    "late start": {"offset": 3.2},
    "anamorphic": {"aspect": Fraction(4, 3)},
    "colour": {"colorspace": 1},
    "rotated 90": {"rotation": 90},
    "rotated 180": {"rotation": 180},
    "rotated 270": {"rotation": 270},
    "odd sides": {"size": (113, 197), "pixel_format": "yuv444p"},
    "full range": {"codec": "mjpeg", "pixel_format": "yuvj420p"},
    "ten bits": {"pixel_format": "yuv420p10le"},
}


@pytest.mark.parametrize("name", CLIPS)
def test_pictures_and_times_of_any_clip_survive(name, tmp_path):
    options = {"frames": 60, **CLIPS[name]}
    original = clips.render(tmp_path / "a.mkv" if name in ("full range", "odd sides") else tmp_path / "a.mp4", **options)
    seconds = [caption(float(i), WORDS if i == 1 else "") for i in range(3)]
    times, before = decode(original)
    copied, after = captioned(tmp_path / "b.mp4", original, seconds)
    assert copied == pytest.approx(times, abs=1.1e-3)  # Matroska keeps milliseconds
    assert numbers(after) == list(range(len(times)))
    assert all(clips.upright(picture.transpose(2, 0, 1)) for picture in after[times < 1])
    height, width = before.shape[1:3]
    if name in ("rotated 90", "rotated 270"):
        height, width = width, height
    assert after.shape[1:3] == (height + height % 2, width + width % 2)
    with av.open(str(original)) as a, av.open(str(tmp_path / "b.mp4")) as b:
        assert a.streams.video[0].sample_aspect_ratio in (None, b.streams.video[0].sample_aspect_ratio)
        assert next(b.decode(video=0)).rotation == 0
    if name not in ("rotated 90", "rotated 180", "rotated 270"):
        bare = times < 1
        assert difference(before[bare], after[bare][:, : before.shape[1], : before.shape[2]]).max() < 80
        assert np.abs(before[bare].astype(int) - after[bare][:, : before.shape[1], : before.shape[2]]).mean() < 2.5


@pytest.mark.parametrize("way", MATRICES)
def test_a_copy_is_upright_whatever_the_display_matrix(way, tmp_path):
    """The pixel in column p, row q of the file is shown in column a p + c q, row b p + d q, up to where the picture begins."""
    a, b, c, d = MATRICES[way]
    matrix = [a * UNIT, b * UNIT, 0, c * UNIT, d * UNIT, 0, 0, 0, 1 << 30]
    original = clips.render(tmp_path / "a.mp4", frames=24, size=(96, 128), matrix=matrix)
    _, pictures = captioned(tmp_path / "b.mp4", original, [caption(0.0)])
    rows, columns = np.mgrid[:96, :128]
    p, q = a * columns + c * rows, b * columns + d * rows
    shown = np.empty((96, 128, 3) if a else (128, 96, 3), np.uint8)
    shown[q - q.min(), p - p.min()] = clips.picture(7, 96, 128)
    assert pictures.shape == (24, *shown.shape)
    assert np.abs(pictures[7].astype(int) - shown).mean() < 12
    with av.open(str(tmp_path / "b.mp4")) as container:  # the copy itself is stored upright
        assert next(container.decode(video=0)).side_data.get("DISPLAYMATRIX") is None


def test_a_change_of_size_keeps_the_first_size(tmp_path):
    parts = [
        clips.render(tmp_path / f"{i}.ts", frames=24, first=24 * i, size=size)
        for i, size in enumerate([(112, 196), (168, 280)])
    ]
    original = clips.concatenate(tmp_path / "a.ts", parts)
    _, after = captioned(tmp_path / "b.mp4", original, [caption(float(i), WORDS) for i in range(2)])
    assert after.shape[1:3] == (112, 196) and numbers(after) == list(range(48))


def test_the_copy_begins_with_the_first_caption(tmp_path):
    original = clips.render(tmp_path / "a.mp4", frames=100, rate=25, sound=4.0)
    times, after = captioned(tmp_path / "b.mp4", original, [caption(2.0, WORDS), caption(3.0)])
    assert numbers(after) == list(range(50, 100)) and times[0] == 0
    assert sound_seconds(tmp_path / "b.mp4") == pytest.approx(2.0, abs=0.3)


def test_pictures_of_dropped_seconds_stay_bare(tmp_path):
    original = clips.render(tmp_path / "a.mp4", frames=75, rate=25, size=(240, 320))
    _, before = decode(original)
    _, after = captioned(tmp_path / "b.mp4", original, [caption(0.0, WORDS), caption(2.0, WORDS, dropped=1.0)])
    drawn = difference(before, after)[:, 200:].max((1, 2)) > DRAWN
    assert drawn.tolist() == [True] * 25 + [False] * 25 + [True] * 25


def test_a_last_part_of_a_second_is_copied_but_not_what_was_never_watched(tmp_path):
    original = clips.render(tmp_path / "a.mp4", frames=110, rate=25)
    _, after = captioned(tmp_path / "whole.mp4", original, [caption(float(i)) for i in range(4)])
    assert len(after) == 110
    _, after = captioned(tmp_path / "interrupted.mp4", original, [caption(0.0, WORDS)])
    assert 25 <= len(after) <= 50


def test_it_grows_with_every_caption_and_a_killed_run_is_playable(tmp_path):
    original = clips.render(tmp_path / "a.mp4", frames=250, rate=25, sound=10.0)
    code = f"""
        import os, signal
        from tests.output.sink_helpers import caption
        from svlm_jax.output import CaptionedVideo
        sink = CaptionedVideo({str(tmp_path / "b.mp4")!r}, {str(original)!r})
        for i in range(7):
            sink.write(caption(float(i), "hello"))
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=Path(__file__).parents[2], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    _, after = decode(tmp_path / "b.mp4")
    assert len(after) >= 100 and numbers(after) == list(range(len(after)))  # at most the fragments in the making are lost
    assert sound_seconds(tmp_path / "b.mp4") > 3


@pytest.mark.parametrize(
    ("container", "codec", "kept"),
    [("ts", "aac", True), ("mkv", "libopus", True), ("mkv", "libmp3lame", True), ("avi", "adpcm_ms", False)],
)
def test_sound_is_copied_where_mp4_can_hold_it(container, codec, kept, tmp_path, caplog):
    if codec not in av.codecs_available:
        pytest.skip(f"no encoder {codec} here")
    original = tmp_path / f"a.{container}"
    with av.open(str(original), "w") as out:
        video, sound = out.add_stream("mpeg4", rate=25), out.add_stream(codec, rate=48_000, layout="mono")
        video.height, video.width, video.pix_fmt = 112, 196, "yuv420p"
        sound.bit_rate = 64_000
        for i in range(50):
            frame = av.VideoFrame.from_ndarray(clips.picture(i), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            out.mux(video.encode(frame))
        wave = (8000 * np.sin(np.arange(96_000) * 0.05)).astype(np.int16)[None]
        whole = av.AudioFrame.from_ndarray(wave, "s16", "mono")
        whole.sample_rate, whole.pts, whole.time_base = 48_000, 0, Fraction(1, 48_000)
        size = sound.codec_context.frame_size or 2048
        for part in av.AudioResampler(sound.format, "mono", 48_000, frame_size=size).resample(whole):
            out.mux(sound.encode(part))
        out.mux(video.encode(None))
        out.mux(sound.encode(None))
    with caplog.at_level(logging.WARNING):
        captioned(tmp_path / "b.mp4", original, [caption(0.0, WORDS), caption(1.0)])
    if kept:
        assert sound_seconds(tmp_path / "b.mp4") == pytest.approx(sound_seconds(original), abs=0.06) and not caplog.messages
    else:
        assert sound_seconds(tmp_path / "b.mp4") is None and "MP4 cannot hold" in caplog.text


def test_stamps_that_stand_still_or_fall_are_made_to_rise(tmp_path):
    original = clips.render(tmp_path / "a.ts", frames=8, rate=4, sound=1.0)
    planes = np.full((168, 196), 128, np.uint8)
    with av.open(str(original)) as source, contextlib.closing(Mp4Writer(tmp_path / "b.mp4")) as writer:
        audio = source.streams.audio[0]
        writer.begin(Look((112, 196), rate=4.0), audio)
        for moment in (0.0, 0.5, 0.5, 0.25, 1.0):
            writer.picture(planes, moment, 0.25)
        packets = [packet for packet in source.demux(audio) if packet.size]
        for packet, moment in zip(packets, [0.0, 0.5, 0.5, 0.25] + [1.0] * len(packets), strict=False):
            writer.sound(packet, moment)
    with av.open(str(tmp_path / "b.mp4")) as copy:
        copied = [(packet.stream.type, packet.dts) for packet in copy.demux() if packet.size]
    for kind, count in (("video", 5), ("audio", len(packets))):
        stamps = [stamp for of, stamp in copied if of == kind]
        assert len(stamps) == count
        assert all(earlier < later for earlier, later in itertools.pairwise(stamps))


def test_an_answer_stands_above_for_its_seconds_and_at_the_end_the_last_picture_is_held(tmp_path):
    original = clips.render(tmp_path / "a.mp4", frames=80, rate=8, size=(240, 320))
    before = decode(original)[1]
    with CaptionedVideo(tmp_path / "b.mp4", original) as sink:
        for second in range(10):
            sink.write(caption(float(second)))
            if second == 1:
                sink.answer(answer(2.0, "Who?", WORDS))
        sink.answer(answer(10.0, "And now?", WORDS))
    times, after = decode(tmp_path / "b.mp4")
    change = difference(before, after[:80])
    shown = [int(row[:100].max()) > DRAWN for row in change]
    assert shown == [2.0 <= i / 8 < 7.0 for i in range(80)] and change[:, 120:].max() < 60
    held = after[80:]
    assert len(held) == 10 and all(difference(before[79], picture)[:100].max() > DRAWN for picture in held)
    assert times[79:] == pytest.approx([9.875, *np.arange(10.0, 15.0, 0.5)])


def test_letters_are_as_large_in_a_portrait_as_in_a_landscape():
    heights = []
    for height, width in ((480, 640), (640, 480)):
        picture = np.full((height * 3 // 2, width), 128, np.uint8)
        draw_caption(picture, "H")
        heights.append(int((picture[:height] != 128).any(1).sum()))
    assert heights[0] == heights[1]


def test_live_frames(tmp_path):
    frames = np.stack([clips.picture(i, 112, 196) for i in range(2)]).transpose(0, 3, 1, 2)
    with CaptionedVideo(tmp_path / "b.mp4") as sink:
        sink.write(caption(7.0, WORDS), frames)
        sink.write(caption(8.0), frames + 0)
        sink.write(caption(12.0, WORDS, dropped=3.0), frames)
        with pytest.raises(OutputError, match="needs its frames"):
            sink.write(caption(13.0))
    times, after = decode(tmp_path / "b.mp4")
    assert times == pytest.approx([0, 0.5, 1, 1.5, 5, 5.5], abs=1e-4)
    assert numbers(after) == [0, 1] * 3
    drawn = [
        np.abs(picture[90:].astype(int) - frames[i % 2].transpose(1, 2, 0)[90:]).max() > 120 for i, picture in enumerate(after)
    ]
    assert drawn == [True, True, False, False, True, True]


def test_errors_are_one_sentence(tmp_path):
    original = clips.render(tmp_path / "a.mp4", frames=50, rate=25)
    content = original.read_bytes()
    (tmp_path / "link.mp4").symlink_to(original)
    for path in (original, tmp_path / "link.mp4"):
        with pytest.raises(OutputError, match="which is being read"):
            CaptionedVideo(path, original)
    assert original.read_bytes() == content
    with pytest.raises(OutputError, match="does not exist"):
        CaptionedVideo(tmp_path / "nowhere" / "b.mp4", original)
    with pytest.raises(OutputError, match="is a folder"):
        CaptionedVideo(tmp_path, original)
    with (
        CaptionedVideo(tmp_path / "b.mp4", tmp_path / "missing.mp4") as sink,
        pytest.raises(SourceError, match=r"missing\.mp4"),
    ):
        sink.write(caption(0.0, WORDS))
    with CaptionedVideo(tmp_path / "c.mp4", original) as sink, pytest.raises(SourceError):
        sink.write(caption(100.0, WORDS))


def test_a_full_disk_is_one_sentence(tmp_path):
    original = clips.render(tmp_path / "a.mp4", frames=250, rate=25, size=(240, 320))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    sink = CaptionedVideo(tmp_path / "b.mp4", original)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"b\.mp4 cannot be written: File too large\.$"):
            for i in range(10):
                sink.write(caption(float(i), WORDS))
        with contextlib.suppress(OutputError):
            sink.close()
        sink.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    with av.open(str(tmp_path / "b.mp4")) as container:
        frames = itertools.takewhile(lambda frame: frame is not None, map(_decoded, container.demux(video=0)))
        assert sum(1 for _ in frames) > 25


def _decoded(packet):
    try:
        return packet.decode()
    except av.error.FFmpegError:
        return None


def test_where_ffmpeg_keeps_the_words_of_the_system_they_are_said(tmp_path):
    """And what is said ends: errors that name one another as their cause would be followed for ever."""
    with Mp4Writer(tmp_path / "a.mp4") as writer:
        refused = writer._file.problem = OSError(28, "No space left on device")
        with (
            pytest.raises(OutputError, match=r"a\.mp4 cannot be written: No space left on device\.$") as told,
            writer._writing(),
        ):
            try:
                raise refused
            except OSError:
                raise av.error.ExternalError(1, "Error in PyAV callback") from None
        assert not is_reader_gone(told.value)
        refused.__cause__ = told.value
        assert not is_reader_gone(told.value)


def test_a_truncated_original_keeps_what_could_be_decoded(tmp_path):
    original = clips.truncate(clips.render(tmp_path / "a.ts", frames=100, rate=25), 0.6)
    _, after = captioned(tmp_path / "b.mp4", original, [caption(float(i), WORDS) for i in range(4)])
    assert 40 <= len(after) <= 75


@pytest.mark.parametrize("size", [(64, 64), (240, 320), (720, 406), (1080, 1920)])
@pytest.mark.parametrize(
    "text", ["short", "many words that must be wrapped " * 12, "oneverylongword" * 20, "进球了！" * 10, " "]
)
def test_captions_stay_inside_any_picture(size, text):
    height, width = size
    picture = np.full((height * 3 // 2, width), 100, np.uint8)
    draw_caption(picture, text)
    luma = picture[:height]
    if not text.strip():
        assert (picture == 100).all()
        return
    columns, rows = (np.flatnonzero((luma != 100).any(axis)) for axis in (0, 1))
    assert luma.max() > 180 and luma.min() < 60
    assert columns[0] > 0 and columns[-1] < width - 1 and rows[-1] < height - 1
    assert rows[0] > height * (0.1 if height < 100 else 0.4)


@pytest.mark.skipif(not VIDEOS.exists(), reason="the sample videos are not here")
@pytest.mark.parametrize("name", ["rotate-buck-bunny.mp4", "car-detection.mp4"])
def test_real_videos(name, tmp_path):
    _, after = captioned(tmp_path / "b.mp4", VIDEOS / name, [caption(0.0, WORDS), caption(1.0)])
    with av.open(str(VIDEOS / name)) as container:
        first = next(container.decode(video=0))
        size = (first.height, first.width) if first.rotation % 180 == 0 else (first.width, first.height)
    assert after.shape[1:3] == size and len(after) > 20
