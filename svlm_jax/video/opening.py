"""What a source's name means, and how it is opened, once: a file, a pipe, a URL, a camera, frames of somebody's own."""

import contextlib
import dataclasses
import importlib
import math
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any, cast
from urllib.request import url2pathname

import numpy as np

from svlm_jax.errors import ConfigError, SourceError
from svlm_jax.host.redact import mask
from svlm_jax.host.retry import Backoff
from svlm_jax.video.chunk import SourceInfo
from svlm_jax.video.chunk_queue import ChunkQueue
from svlm_jax.video.frame_source import FrameSource, array_frames
from svlm_jax.video.http_file import HttpFile
from svlm_jax.video.live import BeginsAnewError, LiveClock, camera, live_frames
from svlm_jax.video.reader import Decoded, VideoReader

# What opens `scheme:rest`: a function, or where to find it ("module:function"), imported when it is first asked for.
SCHEMES: dict[str, Callable[[str], Iterable[tuple[float, np.ndarray]]] | str] = {
    "synthetic": "svlm_jax.synthetic.source:open_synthetic"
}
RTSP_OPTIONS = {"rtsp_flags": "prefer_tcp"}
EARLY = 0.5  # s; a backlog longer than this, which a server sends first, is not played at its own speed
STANDARD_INPUT = "-"


def register_scheme(name: str, frames: Callable[[str], Iterable[tuple[float, np.ndarray]]]) -> None:
    """Makes `open_source("name:rest")` read the (seconds, uint8 RGB (H, W, 3)) pairs of `frames(rest)`.

    What is returned may have an attribute `info`, a `SourceInfo`.
    """
    SCHEMES[name] = frames


def _frames_of(scheme: str) -> Callable[[str], Iterable[tuple[float, np.ndarray]]]:
    frames = SCHEMES[scheme]
    if isinstance(frames, str):
        module, name = frames.split(":")
        frames = getattr(importlib.import_module(module), name)
    return frames


@dataclasses.dataclass(frozen=True)
class How:
    """How a source is to be opened; see `open_source`."""

    start: float
    timeout: float
    options: dict[str, str]
    reconnect: Backoff | None
    on_status: Callable[[str], None]
    clock: Callable[[], float]
    variant: int | None
    max_input_pixels: int

    def reader(self, url: str, name: str, **more: Any) -> VideoReader:
        given = {"start": self.start, "options": self.options, **more}
        return VideoReader(url, name, timeout=self.timeout, variant=self.variant, max_pixels=self.max_input_pixels, **given)


@dataclasses.dataclass
class Opened:
    """What the decoding thread reads, before it runs."""

    info: SourceInfo
    frames: Callable[[ChunkQueue], Iterator[Decoded]]
    close: Callable[[], None]
    origin: float | None = None  # reading of the wall clock at stream time 0, for live sources
    interrupt: Callable[[], None] = lambda: None  # ends a wait for frames
    restart: Callable[[], float] | None = None  # begins stream time anew, for live sources


def open_spec(spec: Any, how: How) -> Opened:
    """Finds out what `spec` means and opens it; SourceError or ConfigError as of `open_source`."""
    if isinstance(spec, bool) or spec is None:
        raise SourceError(f"A source cannot be {spec!r}; expected a path, a URL, a camera index or frames.")
    if isinstance(spec, int) or (isinstance(spec, str) and spec.isdecimal()):
        index = int(spec)
        if index < 0:
            raise SourceError(f"Camera {index} does not exist; indices begin at 0.")
        device, format = camera(index)
        return _open_live(device, f"camera {index}", "webcam", how, format=format)
    if not isinstance(spec, str | os.PathLike):
        return _open_frames(spec, how)
    text = os.fspath(spec)
    scheme, colon, rest = text.partition(":")
    if colon and scheme in SCHEMES:
        return _open_frames(_frames_of(scheme)(rest), how, name=text)
    if isinstance(spec, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", spec):
        return _open_url(spec, scheme.lower(), how)
    return _open_file(text, how)


def picture_span(path: str | os.PathLike[str]) -> tuple[float, float]:
    """Seconds at which the picture of a file begins and ends, by reading its packets; SourceError when it has none."""
    name = os.fspath(path)
    check_file(name)
    with contextlib.closing(VideoReader(f"file:{name}", name)) as reader:
        return reader.span()


def _open_file(path: str, how: How) -> Opened:
    if path == STANDARD_INPUT:
        return _opened(how.reader("pipe:0", "standard input", seekable=False), "pipe")
    once = check_file(path)
    # The prefix keeps FFmpeg from reading a scheme into a name with a colon.
    return _opened(how.reader(f"file:{path}", path, seekable=not once), "pipe" if once else "file")


def check_file(path: str) -> bool:
    """Whether a path is a pipe, which can be read only once; SourceError for what is no file with something in it."""
    if not os.path.exists(path):
        raise SourceError(f"{path} does not exist; expected a video file, a URL or a camera index.")
    if os.path.isdir(path):
        raise SourceError(f"{path} is a folder; a video file was expected.")
    if not os.access(path, os.R_OK):
        raise SourceError(f"{path} cannot be read: permission denied.")
    kind = os.stat(path).st_mode
    if stat.S_ISREG(kind) and os.path.getsize(path) == 0:
        raise SourceError(f"{path} is empty (0 bytes); a video file was expected.")
    return stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind) or stat.S_ISCHR(kind)


def _open_url(url: str, scheme: str, how: How) -> Opened:
    if scheme == "file":
        return _open_file(url2pathname(url.removeprefix("file://")), how)
    name = mask(url)
    if scheme not in ("http", "https"):
        return _open_live(url, name, scheme, how)

    def open_file() -> HttpFile:
        return HttpFile(url, name, timeout=how.timeout, options=how.options)

    def once(file: HttpFile, live: bool | None) -> VideoReader:
        return how.reader(url, name, file=cast(IO[bytes], file), live=live, endless=False, seekable=False)

    def again() -> VideoReader:
        fresh = open_file()
        if fresh.head() == head:
            fresh.close()
            raise BeginsAnewError(f"{name} broke off, and its server sends it from the beginning again; expected the rest.")
        return once(fresh, live=True)

    file, head, connect = open_file(), b"", None
    if file.playlist:
        file.close()
        reader = how.reader(url, name, live=None, endless=False, seekable=False)
    elif file.length is not None:
        reader = how.reader(url, name, file=cast(IO[bytes], file), seekable=file.seekable())
    else:
        head, connect = file.head(), again
        reader = once(file, live=None)
    if not reader.live:
        return _opened(reader, "http")
    # A stream that does not know its length is live; it may deliver segments of several seconds at once.
    return _open_live(url, name, "http", how, reader=reader, connect=connect, endless=False, early=math.inf)


def _open_live(
    url: str,
    name: str,
    kind: str,
    how: How,
    *,
    reader: VideoReader | None = None,
    connect: Callable[[], VideoReader] | None = None,
    format: str | None = None,
    endless: bool = True,
    early: float = EARLY,
) -> Opened:
    if how.start > 0:
        if reader is not None:
            reader.close()
        raise ConfigError(f"{name} is live; start={how.start:g} cannot be reached, expected 0.")
    options = {**(RTSP_OPTIONS if kind == "rtsp" else {}), **how.options}

    def open_peer() -> VideoReader:
        return how.reader(url, name, live=True, endless=endless, seekable=False, format=format, options=options)

    first = reader or open_peer()
    live_clock = LiveClock(how.clock, early)

    def frames(chunk_queue: ChunkQueue) -> Iterator[Decoded]:
        return live_frames(
            first,
            connect or open_peer,
            live_clock,
            backoff=how.reconnect,
            wait=chunk_queue.wait_closed,
            on_status=how.on_status,
        )

    opened = _opened(first, kind)
    return Opened(opened.info, frames, first.close, live_clock.origin, restart=live_clock.restart)


def _opened(reader: VideoReader, kind: str) -> Opened:
    info = SourceInfo(reader.name, kind, reader.width, reader.height, reader.fps, reader.duration, reader.live, reader.begin)
    return Opened(info, lambda chunk_queue: iter(reader), reader.close, interrupt=reader.stop)


def _open_frames(frames: Any, how: How, name: str = "frames") -> Opened:
    if not isinstance(frames, Iterable):
        raise SourceError(f"A source cannot be {type(frames).__name__}; expected a path, a URL, a camera index or frames.")
    if not (isinstance(frames, FrameSource) and frames.live):
        close = frames.end if isinstance(frames, FrameSource) else lambda: None
        info = getattr(frames, "info", None)
        info = dataclasses.replace(info, name=name) if isinstance(info, SourceInfo) else SourceInfo(name, "frames")
        return Opened(info, lambda chunk_queue: array_frames(frames), close, interrupt=close)
    if how.start > 0:
        raise ConfigError(f"{name} are live; start={how.start:g} cannot be reached, expected 0.")
    live_clock = LiveClock(how.clock, EARLY)
    return Opened(
        SourceInfo(name, "frames", live=True),
        lambda chunk_queue: live_clock.restamp(array_frames(frames)),
        frames.end,
        live_clock.origin,
        frames.end,
        live_clock.restart,
    )
