"""Sources that cannot be opened or end early: one sentence each."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from svlm_jax.errors import SourceError
from svlm_jax.video.source import FrameSource, open_source
from tests.clips import _tone, number, picture, render, render_sound, truncate


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def refusal(spec: Any, **settings: Any) -> str:
    with pytest.raises(SourceError) as caught, open_source(spec, **settings) as source:
        for _ in source:
            pass
    message = str(caught.value)
    assert message.endswith(".") and "\n" not in message
    return message


def test_missing_file(tmp_path: Path) -> None:
    assert "none.mp4 does not exist" in refusal(tmp_path / "none.mp4")


def test_folder(tmp_path: Path) -> None:
    assert "is a folder" in refusal(tmp_path)


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").touch()
    assert "is empty (0 bytes)" in refusal(tmp_path / "clip.mp4")


@pytest.mark.parametrize("name", ["notes.txt", "notes.mp4", "notes"])
def test_not_a_video(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("These are words, and words are no pictures.\n" * 50)
    assert "is not a video" in refusal(tmp_path / name)


def test_a_picture_is_not_a_video(tmp_path: Path) -> None:
    Image.fromarray(picture(1)).save(tmp_path / "still.png")
    assert "is not a video" in refusal(tmp_path / "still.png")


def test_only_sound(tmp_path: Path) -> None:
    assert "holds only sound" in refusal(render_sound(tmp_path / "clip.m4a"))


def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    Image.fromarray(picture(1)).save(tmp_path / "cover.png")
    with av.open(str(tmp_path / "song.m4a"), "w", format="mp4") as container:
        tone = container.add_stream("aac", rate=8000)
        with av.open(str(tmp_path / "cover.png")) as cover:
            art = container.add_stream_from_template(cover.streams.video[0])
            art.disposition = av.stream.Disposition.attached_pic
            (packet,) = (packet for packet in cover.demux() if packet.size)
            packet.stream = art
            container.mux(packet)
        for packet in _tone(tone, 1.0):
            container.mux(packet)
    assert "holds only sound" in refusal(tmp_path / "song.m4a")


@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_zero_frames(tmp_path: Path, container: str) -> None:
    clip = render(tmp_path / f"clip.{container}")
    assert "no video" in refusal(clip) or "before its first video frame" in refusal(clip)


def test_no_frame_that_can_be_decoded(tmp_path: Path) -> None:
    clip = render(tmp_path / "clip.mp4", frames=24, options={"movflags": "faststart"})
    data = bytearray(clip.read_bytes())
    begin = data.index(b"mdat") + 4
    data[begin:] = bytes(len(data) - begin)
    clip.write_bytes(data)
    assert "no video frame that can be decoded" in refusal(clip)


@pytest.mark.parametrize(("container", "sound"), [("mp4", 0.0), ("mp4", 10.0), ("mkv", 0.0), ("mkv", 10.0)])
def test_truncated_files_give_what_they_hold_first(tmp_path: Path, container: str, sound: float) -> None:
    options = {"movflags": "faststart"} if container == "mp4" else {}
    clip = truncate(render(tmp_path / f"clip.{container}", frames=240, sound=sound, options=options), 0.6)
    chunks = []
    with (
        open_source(clip, fps=8) as source,
        pytest.raises(SourceError, match=r"truncated: decoded \d\.\d s of 10\.\d s") as caught,
    ):
        chunks.extend(source)
    decoded = float(str(caught.value).split("decoded ")[1].split()[0])
    assert len(chunks) == int(decoded + 0.999) >= 4
    assert number(chunks[3].frames[4]) == 84


def test_a_truncated_file_without_its_index(tmp_path: Path) -> None:
    assert "is truncated or damaged: the index" in refusal(truncate(render(tmp_path / "clip.mp4", frames=240), 0.6))


def test_an_early_end_of_the_sound_or_the_picture_is_no_truncation(tmp_path: Path) -> None:
    for sound in (1.0, 9.0):
        with open_source(render(tmp_path / "clip.mkv", frames=96, sound=sound)) as source:
            assert len(list(source)) == 4


@pytest.mark.parametrize("scheme", ["http", "rtsp", "tcp"])
def test_nobody_answers(scheme: str) -> None:
    message = refusal(f"{scheme}://anna:s3cret@127.0.0.1:{closed_port()}/live?token=abc", timeout=3)
    assert "cannot be opened: Connection refused" in message
    assert "anna" not in message and "s3cret" not in message and "abc" not in message
    assert "127.0.0.1" in message


def test_a_peer_that_never_says_anything() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        message = refusal(f"tcp://127.0.0.1:{server.getsockname()[1]}", timeout=0.3)
    assert "no answer within 0.3 s" in message


def test_an_unknown_scheme() -> None:
    assert "cannot be opened: Protocol not found" in refusal("gopher9://host/video")


@pytest.mark.parametrize("index", [63, "63", -1])
def test_wrong_camera(index: int | str) -> None:
    assert f"Camera {index} does not exist" in refusal(index)


@pytest.mark.parametrize("spec", [None, True, 1.5])
def test_what_is_no_source(spec: Any) -> None:
    assert "cannot be" in refusal(spec)


def test_start_behind_the_end(tmp_path: Path) -> None:
    assert "start=30 is after" in refusal(render(tmp_path / "clip.mp4", frames=48), start=30)
    assert "start=30 is after" in refusal(render(tmp_path / "clip.h264", frames=48), start=30)
    assert "start=30 is after" in refusal(((i / 24, picture(i)) for i in range(48)), start=30)


def pairs(*items: Any) -> Iterator[Any]:
    yield from items


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ((), "without a frame"),
        ((picture(0),), "expected .seconds, frame. pairs"),
        (((0.0, picture(0).astype(np.float32)),), "expected a NumPy array uint8"),
        (((0.0, picture(0)[..., 0]),), r"uint8 \(112, 196\)"),
        (((1.0, picture(0)), (0.5, picture(1))), "0.5 s came after one at 1 s"),
    ],
)
def test_frames_that_are_none(items: tuple, message: str) -> None:
    with pytest.raises(SourceError, match=message), open_source(pairs(*items)) as source:
        list(source)


def test_an_unexpected_failure_reaches_the_session() -> None:
    def broken() -> Iterator[tuple[float, np.ndarray]]:
        yield from ((i / 24, picture(i)) for i in range(30))
        raise ZeroDivisionError("a bug of the caller's")

    with pytest.raises(ZeroDivisionError, match="a bug"), open_source(broken()) as source:
        list(source)


def test_pushing_what_is_no_frame() -> None:
    with pytest.raises(SourceError, match="expected a NumPy array uint8"):
        FrameSource().push([1, 2, 3])  # type: ignore[arg-type]
