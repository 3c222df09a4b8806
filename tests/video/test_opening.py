"""Sources that can be opened only once, break off, change, lie about their size, or are no video."""

import http.server
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from svlm_jax.errors import SourceError
from svlm_jax.host.retry import Backoff
from svlm_jax.video.source import FrameSource, open_source
from tests import clips
from tests.video.peers import web_server, whole
from tests.video.test_containers import draw, playlist, regular, seen

ROOT = Path(__file__).parents[2]
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}


@pytest.mark.parametrize("container", ["ts", "mkv", "mp4"])
@pytest.mark.parametrize("start", [0.0, 2.0])
def test_a_named_pipe_is_opened_once(container: str, start: float, tmp_path: Path) -> None:
    clip = draw(tmp_path, container, options=FRAGMENTS if container == "mp4" else None)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(clip.read_bytes()))
    writer.start()
    with open_source(pipe, start=start) as source:
        assert source.info.kind == "pipe" and not source.info.live
        first = source.peek()
        chunks = list(source)
    writer.join(5)
    assert first is not None and first.frames is chunks[0].frames
    shown = {chunk.start: [clips.number(frame) for frame in chunk.frames] for chunk in chunks}
    assert shown == {second: numbers for second, numbers in regular(4).items() if second >= start}


@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
def test_standard_input(name: str, tmp_path: Path) -> None:
    code = f"""
        from svlm_jax.video.source import open_source
        with open_source({name!r}) as source:
            assert source.info.kind == "pipe", source.info
            assert [chunk.start for chunk in source] == [0, 1, 2, 3]
    """
    data = draw(tmp_path, "ts").read_bytes()
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, input=data, cwd=ROOT, timeout=60, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def test_a_look_at_a_live_source_does_not_begin_it() -> None:
    pushed, stop = FrameSource(), threading.Event()

    def feed() -> None:
        number = 0
        while not stop.wait(0.02):
            pushed.push(clips.picture(number))
            number += 1

    feeder = threading.Thread(target=feed)
    feeder.start()
    with open_source(pushed, fps=8, chunk_seconds=0.25) as source:
        looked = source.peek()
        assert looked is not None and looked.start < 1
        time.sleep(1.0)  # a model is loaded
        chunk = next(source)
        stop.set()
    feeder.join()
    assert chunk.start < 0.5 and chunk.dropped == 0
    assert clips.number(chunk.frames[0]) > clips.number(looked.frames[-1]) + 20


# ------------------------------------------------------------------------------------------------------------ HTTP


def breaking(data: bytes, every: int, *, ranges: bool = True, other: bytes | None = None, length: bool = True) -> Callable:
    """Answers with at most `every` bytes and hangs up, without having said so; from the second answer on with `other`."""
    answers = []

    def respond(request: http.server.BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("Range") if ranges else None
        begin = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted else 0
        body = data if other is None or not answers else other
        answers.append(begin)
        request.send_response(206 if wanted else 200)
        request.send_header("ETag", f'"{hash(body)}"')
        if wanted:
            request.send_header("Content-Range", f"bytes {begin}-{len(body) - 1}/{len(body)}")
        if length:
            request.send_header("Content-Length", str(len(body) - begin))
        request.end_headers()
        request.wfile.write(body[begin : begin + every])
        request.close_connection = True

    return respond


@pytest.mark.parametrize("container", ["mp4", "ts"])
def test_a_download_that_breaks_off_goes_on_where_it_stopped(container: str, tmp_path: Path) -> None:
    data = draw(tmp_path, container).read_bytes()
    with web_server(breaking(data, 30_000)) as root:
        assert seen(f"{root}/clip.{container}") == regular(4)
        assert seen(f"{root}/clip.{container}", start=2.0) == {s: n for s, n in regular(4).items() if s >= 2}


def test_a_download_that_cannot_go_on_says_so(tmp_path: Path) -> None:
    data = draw(tmp_path, "ts").read_bytes()
    other = draw(tmp_path, "ts", "other", first=500).read_bytes()
    half = len(data) // 2
    for respond, sentence in (
        (breaking(data, half, ranges=False), f"broke off at byte {half} of {len(data)}"),
        (breaking(data, half, other=other), "the server does not go on with the same file"),
    ):
        got: list[int] = []
        with (
            web_server(respond) as root,
            pytest.raises(SourceError, match=sentence),
            open_source(f"{root}/clip.ts?token=s3cret") as source,
        ):
            got.extend(clips.number(frame) for chunk in source for frame in chunk.frames)
        assert max(got, default=0) < 96 and got == sorted(got)  # never replayed, and no frame of the other file


def torn(answers: list[bytes], paces: float = 0.02) -> Callable:
    """Answers in chunks, without a length, each answer with the next of these; all but the last one break off."""
    asked = []

    def respond(request: http.server.BaseHTTPRequestHandler) -> None:
        asked.append(request.path)
        body, last = answers[min(len(asked), len(answers)) - 1], len(asked) >= len(answers)
        request.send_response(200)
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        for at in range(0, len(body), 8192):
            part = body[at : at + 8192]
            request.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            time.sleep(paces)
        request.wfile.write(b"0\r\n\r\n" if last else b"2000\r\nhalf")
        request.close_connection = True

    return respond


def test_a_stream_without_a_length_that_breaks_off_is_never_replayed(tmp_path: Path) -> None:
    """What begins again as it began is the same file, and not what follows; what begins otherwise is."""
    data = draw(tmp_path, "ts").read_bytes()
    rest = draw(tmp_path, "ts", "rest", first=500).read_bytes()
    soon, said = Backoff(first=0.01, jitter=0.0), []
    got: list[int] = []
    with (
        web_server(torn([data, data])) as root,
        pytest.raises(SourceError, match="sends it from the beginning again"),
        open_source(f"{root}/live.ts", reconnect=soon, on_status=said.append) as source,
    ):
        got.extend(clips.number(frame) for chunk in source for frame in chunk.frames)
    assert got == sorted(got) and said and "broke off at byte" in said[0]
    with web_server(torn([data, rest])) as root, open_source(f"{root}/live.ts", reconnect=soon) as source:
        got = [clips.number(frame) for chunk in source for frame in chunk.frames]
    assert got == sorted(got) and got[-1] > 500


@pytest.mark.parametrize("part", ["bytes 300-1023/1024", "bytes */1024"])
def test_a_server_that_begins_in_the_middle_is_refused(part: str) -> None:
    def respond(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(206)
        request.send_header("Content-Range", part)
        request.send_header("Content-Length", "724")
        request.end_headers()
        request.wfile.write(bytes(724))

    with web_server(respond) as root, pytest.raises(SourceError, match="another part of it than its beginning"):
        open_source(f"{root}/clip.ts")


@pytest.mark.parametrize(
    "url", ["http://[::1/a.mp4", "http://a..b/c.mp4", "http://127.0.0.1:99999/a", "http://:80:80/", "https://"]
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(SourceError, match=r"cannot be opened|no address"):
        open_source(url, timeout=2.0)


def test_addresses_of_any_letters(tmp_path: Path) -> None:
    data = draw(tmp_path, "ts").read_bytes()
    asked = []

    def respond(request: http.server.BaseHTTPRequestHandler) -> None:
        asked.append(request.path)
        whole(data)(request)

    with web_server(respond) as root:
        assert seen(f"{root}/vidéo 1.ts?wo=Zürich&b=%2F") == regular(4)
    assert set(asked) == {"/vid%C3%A9o%201.ts?wo=Z%C3%BCrich&b=%2F"}


def test_credentials_do_not_follow_a_redirect(tmp_path: Path) -> None:
    data = draw(tmp_path, "ts").read_bytes()
    sent: list[tuple[str, str | None, str | None]] = []

    def respond(request: http.server.BaseHTTPRequestHandler) -> None:
        sent.append((request.path, request.headers.get("Authorization"), request.headers.get("X-Key")))
        if request.path == "/clip.ts":
            request.send_response(302)
            request.send_header("Location", "/elsewhere.ts")
            request.send_header("Content-Length", "0")
            request.end_headers()
        else:
            whole(data)(request)

    with web_server(respond) as root:
        address = root.replace("//", "//anna:s3cret@")
        assert seen(f"{address}/clip.ts", options={"headers": "X-Key: s3cret"}) == regular(4)
    assert sent[0][1:] == ("Basic YW5uYTpzM2NyZXQ=", "s3cret")
    assert {found[1:] for found in sent if found[0] == "/elsewhere.ts"} == {(None, None)}


def test_a_file_over_http_without_a_duration_is_a_file(tmp_path: Path) -> None:
    live = {"live": "1"}  # as browsers record: neither duration nor index
    data = clips.render(tmp_path / "clip.webm", frames=96, codec="libvpx", options=live).read_bytes()
    with web_server(whole(data)) as root:
        with open_source(f"{root}/clip.webm") as source:
            assert not source.info.live
            begin = time.monotonic()
            assert [chunk.dropped for chunk in source] == [0] * 4 and time.monotonic() - begin < 3.5
        assert list(seen(f"{root}/clip.webm", start=2.0)) == [2.0, 3.0]


# ------------------------------------------------------------------------------------------- damaged and too large


def test_metadata_in_any_encoding(tmp_path: Path) -> None:
    clip = tmp_path / "clip.avi"
    with av.open(str(clip), "w") as container:
        container.metadata["title"] = "Tor fuer Koeln"
        stream = container.add_stream("mpeg4", rate=24)
        stream.height, stream.width, stream.pix_fmt = 112, 196, "yuv420p"
        for i in range(24):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(clips.picture(i), format="rgb24")))
        container.mux(stream.encode())
    clip.write_bytes(clip.read_bytes().replace(b"fuer Koeln", "für Köln ?".encode("latin-1")[:10]))
    assert list(seen(clip)) == [0.0]


def test_a_stream_that_appears_in_the_middle(tmp_path: Path) -> None:
    clip = draw(tmp_path, "flv")
    data = bytearray(clip.read_bytes())
    at = data.index(b"\x09", len(data) // 2)
    # A tag of sound where there was none: FLV begins a stream with it.
    end = 13
    while end < at:
        end += 15 + int.from_bytes(data[end + 1 : end + 4])
    tag = b"\x08" + (3).to_bytes(3) + data[end + 4 : end + 8] + b"\0\0\0" + b"\x2f\xff\xfb"
    clip.write_bytes(data[:end] + tag + len(tag).to_bytes(4) + data[end:])
    assert seen(clip) == regular(4)


@pytest.mark.parametrize(("container", "codec"), [("avi", "mpeg4"), ("avi", "mjpeg")])
def test_large_pictures_are_reduced_where_the_decoder_can(container: str, codec: str, tmp_path: Path) -> None:
    form = {"pixel_format": "yuvj420p"} if codec == "mjpeg" else {}
    clip = clips.render(tmp_path / f"clip.{container}", frames=48, codec=codec, size=(448, 784), **form)
    with open_source(clip, max_input_pixels=100_000) as source:
        assert source.info.height * source.info.width <= 100_000
        assert [clips.number(frame) for chunk in source for frame in chunk.frames] == [0, 12, 24, 36]


@pytest.mark.parametrize("container", ["mp4", "ts", "mkv"])
def test_large_pictures_are_refused_where_it_cannot(container: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"20000 pixels \(--max-input-pixels\)\."):
        open_source(draw(tmp_path, container, frames=12), max_input_pixels=20_000)


@pytest.mark.slow
def test_headers_that_declare_giants_take_no_memory(tmp_path: Path) -> None:
    """Each in a process of its own, at most 500 MB in all."""
    drawn = []
    for name, size, codec in (
        ("a.ts", (8000, 12000), "libx264"),
        ("a.mkv", (8000, 12000), "libx264"),
        ("a.avi", (6000, 8000), "mpeg4"),
    ):
        with av.open(str(tmp_path / name), "w") as container:
            stream = container.add_stream(
                codec, rate=4, options={"preset": "ultrafast", "threads": "1"} if codec == "libx264" else {}
            )
            stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
            frame = av.VideoFrame(size[1], size[0], "yuv420p")
            for plane in frame.planes:
                plane.update(bytes(plane.buffer_size))
            container.mux(stream.encode(frame))
            container.mux(stream.encode())
        drawn.append(tmp_path / name)
    small = clips.render(tmp_path / "small.avi", frames=8, codec="mjpeg", pixel_format="yuvj420p", size=(48, 64))
    data = bytearray(small.read_bytes())
    at = data.find(b"\xff\xc0")
    while at >= 0:
        data[at + 5 : at + 9] = np.array([65_000, 65_000], ">u2").tobytes()
        at = data.find(b"\xff\xc0", at + 1)
    (tmp_path / "jpeg.avi").write_bytes(data)
    code = """
        import re, sys
        from svlm_jax.errors import SourceError
        from svlm_jax.video.source import open_source
        try:
            with open_source(sys.argv[1]) as source:
                list(source)
        except SourceError:
            pass
        print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
    """
    for path in (*drawn, tmp_path / "jpeg.avi"):
        command = [sys.executable, "-c", textwrap.dedent(code), str(path)]
        done = subprocess.run(command, cwd=ROOT, timeout=120, capture_output=True, text=True, check=True)
        assert int(done.stdout) < 500 * 1024, path.name


# ------------------------------------------------------------------------------------------------------- sentences


def test_an_encrypted_file_is_said_to_be_one(tmp_path: Path) -> None:
    key = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "0" * 32, "encryption_kid": "1" * 32}
    clip = clips.render(tmp_path / "clip.mp4", frames=24, options=key)
    with pytest.raises(SourceError, match="is encrypted: no frame of it can be decoded without its key"):
        open_source(clip)


def test_a_playlist_whose_segments_are_missing(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"clip\.m3u8"):
        open_source(playlist(tmp_path / "clip.m3u8", [tmp_path / "none.ts"]))


@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_only_what_is_truncated_is_said_to_be(container: str, tmp_path: Path) -> None:
    longer = clips.render(tmp_path / f"clip.{container}", frames=48, sound=6.0)
    assert seen(longer).keys() in ({0.0, 1.0}, {0.0, 1.0, 2.0})
    with open_source(longer) as source:
        assert source.info.duration == pytest.approx(2, abs=0.15)
