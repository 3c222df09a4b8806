"""Readers of video, pictures, playlists and what servers send."""

import contextlib
import functools
import io
import itertools
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image

from svlm_jax.errors import RequestError, SvlmError
from svlm_jax.eval.frames import Video, seconds
from svlm_jax.host.chat_client import Endpoint
from svlm_jax.serving.images import decode_image
from svlm_jax.serving.limits import Limits
from svlm_jax.synthetic.source import open_synthetic
from svlm_jax.video import http_file
from svlm_jax.video.source import open_source
from tests import clips
from tests.fuzz.reader import Reader, encoded, text

CODECS = {"avi": "mpeg4", "mpg": "mpeg2video"}
SILENT = ("avi", "h264", "mpg")
MOST = 200  # chunks that are looked at


def drawn(suffix: str) -> bytes:
    """A clip of two seconds."""
    with tempfile.TemporaryDirectory() as folder:
        sound, rate = 0.0 if suffix in SILENT else 1.0, 24 if suffix in SILENT else 4
        codec = CODECS.get(suffix, "libx264")
        path = Path(folder) / f"a.{suffix}"
        return clips.render(path, frames=2 * rate, rate=rate, size=(56, 84), sound=sound, codec=codec).read_bytes()


def watch(file: str, **options: str) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        with open_source(folder / file, timeout=5.0, reconnect=None, options=options) as source:
            for _ in itertools.islice(source, MOST):
                pass

    return read


def container(suffix: str) -> Reader:
    return Reader(f"a.{suffix}", lambda: [drawn(suffix)], watch(f"a.{suffix}"))


PLAYLIST = """#EXTM3U
#EXT-X-VERSION:3
#EXT-X-TARGETDURATION:1
#EXT-X-MEDIA-SEQUENCE:7
#EXTINF:0.1,
one.ts
#EXT-X-DISCONTINUITY
#EXTINF:0.100,
two.ts
#EXT-X-ENDLIST
"""
MASTER = """#EXTM3U
#EXT-X-STREAM-INF:BANDWIDTH=90000,RESOLUTION=84x56,CODECS="avc1.42c00a"
inner.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=50000,RESOLUTION=42x28
inner.m3u8
"""


def segments(folder: Path) -> None:
    for name in ("one.ts", "two.ts"):
        (folder / name).write_bytes(drawn("ts"))
    (folder / "inner.m3u8").write_text(PLAYLIST)


def pictures() -> list[bytes]:
    found = []
    for format in ("PNG", "JPEG"):
        file = io.BytesIO()
        Image.fromarray(clips.picture(5, 56, 84)).save(file, format)
        found.append(file.getvalue())
    return found


def read_pictures(folder: Path) -> None:
    """As frames of a benchmark, whatever the name of the file says, and as what a client sends."""
    frames = folder / "frames"
    frames.mkdir(exist_ok=True)
    shutil.copy(folder / "a.bin", frames / "000.png")
    with contextlib.suppress(RequestError):
        decode_image((folder / "a.bin").read_bytes(), Limits())
    for chunk in seconds(Video(frames, rate=1.0), 0.0, 1e9, fps=2.0):
        assert chunk.frames.dtype == np.uint8


@functools.cache
def raw_server() -> tuple[str, list[bytes]]:
    """An address, and a list whose only entry is sent to whoever connects, which then hangs up."""
    server, says = socket.create_server(("127.0.0.1", 0)), [b""]

    def serve() -> None:
        while True:
            connection, _ = server.accept()
            with connection:
                try:
                    connection.settimeout(2.0)
                    connection.recv(1 << 16)
                    connection.sendall(says[0])
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(1 << 16):
                        pass
                except OSError:
                    continue

    threading.Thread(target=serve, daemon=True).start()
    return f"http://127.0.0.1:{server.getsockname()[1]}", says


def http_seeds() -> list[bytes]:
    data = bytes(range(256)) * 4
    head = b'Content-Type: video/mp4\r\nETag: "a"\r\nDate: Sat, 28 Nov 2026 10:00:00 GMT\r\n'
    chunked = b"".join(f"{len(part):x}\r\n".encode() + part + b"\r\n" for part in (data[:300], data[300:], b""))
    return [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1024\r\nAccept-Ranges: bytes\r\n" + head + b"\r\n" + data,
        b"HTTP/1.1 206 Partial Content\r\nContent-Length: 1024\r\nContent-Range: bytes 0-1023/1024\r\n" + head + b"\r\n" + data,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" + head + b"\r\n" + chunked,
        b"HTTP/1.0 200 OK\r\n" + head + b"\r\n" + data,
    ]


def refusals() -> list[bytes]:
    return [
        b"HTTP/1.1 302 Found\r\nLocation: /b?c=d\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 503 Busy\r\nRetry-After: 3\r\nContent-Length: 0\r\n\r\n",
    ]


def read_http(folder: Path) -> None:
    """A file behind HTTP: its beginning, what follows, and its end."""
    address, says = raw_server()
    says[0] = (folder / "reply").read_bytes()
    with mock.patch.object(http_file, "PAUSE", 0.0):
        file = http_file.HttpFile(f"{address}/a.mp4", "a.mp4", timeout=2.0, options={})
        try:
            file.read(100)
            for _ in range(100):
                if not file.read(1 << 16):
                    break
            if file.seekable():
                file.seek(10)
                file.read(10)
        finally:
            file.close()


def read_refusal(folder: Path) -> None:
    """What is not even meant to be read."""
    for read in (read_http, read_completion):
        with contextlib.suppress(SvlmError):
            read(folder)


def completion_seeds() -> list[bytes]:
    body = encoded({"choices": [{"message": {"role": "assistant", "content": "yes"}}], "usage": {"total_tokens": 3}})[0]
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    return [head + body]


def read_completion(folder: Path) -> None:
    address, says = raw_server()
    says[0] = (folder / "reply").read_bytes()
    Endpoint(f"{address}/v1", "m", timeout=2.0, tries=1, pause=0.0).ask("system", "user")


SOURCES: dict[str, Reader] = {
    **{f"video: {suffix}": container(suffix) for suffix in ("mp4", "mkv", "ts", "avi", "flv", "mpg", "h264")},
    # A playlist without its end is one that goes on: FFmpeg looks for more a thousand times.
    "video: playlist": Reader(
        "a.m3u8", lambda: encoded(PLAYLIST, MASTER), watch("a.m3u8", m3u8_hold_counters="1", max_reload="1"), segments
    ),
    "pictures": Reader("a.bin", pictures, read_pictures),
    "HTTP: file": Reader("reply", http_seeds, read_http),
    "HTTP: refusals": Reader("reply", refusals, read_refusal),
    "HTTP: chat completion": Reader("reply", completion_seeds, read_completion),
    "synthetic": Reader(
        "a.txt",
        lambda: encoded("match?seed=3&minutes=0.1&scale=4&fps=12", "facts?seed=2&minutes=0.05&every=30&fps=2"),
        lambda folder: list(itertools.islice(open_synthetic(text(folder)), 3)),
    ),
}
