"""Video in: files, URLs, cameras, RTSP streams and frames of one's own, as chunks of model-sized frames."""

import dataclasses
import functools
import importlib
import math
import os
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self
from urllib.request import url2pathname

import numpy as np

from svlm_jax.errors import ConfigError, SourceError
from svlm_jax.video.chunk import Chunk, SourceInfo
from svlm_jax.video.chunk_queue import Behind, ChunkQueue
from svlm_jax.video.decode_thread import ModelSize, pump
from svlm_jax.video.frame_source import FrameSource, array_frames
from svlm_jax.video.live import Backoff, LiveClock, camera, live_frames, mask
from svlm_jax.video.reader import Decoded, VideoReader
from svlm_jax.video.resize import FACTOR, MAX_PIXELS, MIN_PIXELS, TEMPORAL_PATCH, smart_resize
from svlm_jax.video.sampler import PtsSampler, PublishedSampler

__all__ = ["Backoff", "Chunk", "FrameSource", "Source", "SourceInfo", "open_source", "register_scheme"]


# What opens `scheme:rest`: a function, or where to find it ("module:function"), imported when it is first asked for.
SCHEMES: dict[str, Callable[[str], Iterable[tuple[float, np.ndarray]]] | str] = {
    "synthetic": "svlm_jax.synthetic.source:open_synthetic"
}
HTTP_OPTIONS = {"reconnect": "1", "reconnect_delay_max": "5"}  # a download that breaks off goes on where it stopped
RTSP_OPTIONS = {"rtsp_flags": "prefer_tcp"}
EARLY = 0.5  # s; a backlog longer than this, which a server sends first, is not played at its own speed


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


class Source:
    """Chunks of a video stream in time order: an iterator and a context manager; `info` says what it reads.

    A thread decodes ahead into a bounded queue. What stops it is raised here, after the last chunk that could be decoded.
    """

    def __init__(self, info: SourceInfo, chunk_queue: ChunkQueue, thread: threading.Thread, interrupt: Callable[[], None]):
        self.info = info
        self._mailbox, self._thread, self._interrupt = chunk_queue, thread, interrupt
        weakref.finalize(self, chunk_queue.close)  # a source that nobody holds any more stops decoding
        thread.start()

    def __iter__(self) -> Iterator[Chunk]:
        return self

    def __next__(self) -> Chunk:
        chunk = self._mailbox.get()
        if chunk is None:
            raise StopIteration
        return chunk

    def peek(self) -> Chunk | None:
        """The first chunk, without taking it; None when there is none.

        A file then begins with this chunk, and a file in real time with the first request. A live source goes on unseen: its
        time 0 is the first request, so minutes may pass between the two.
        """
        return self._mailbox.peek()

    def close(self) -> None:
        """Stops decoding; a read that blocks ends at its time limit."""
        self._mailbox.close()
        self._interrupt()
        if self._thread is not threading.current_thread():
            self._thread.join(2.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@dataclasses.dataclass
class _Opened:
    """What the decoding thread reads, before it runs."""

    info: SourceInfo
    frames: Callable[[ChunkQueue], Iterator[Decoded]]
    close: Callable[[], None]
    origin: float | None = None  # reading of the wall clock at stream time 0, for live sources
    interrupt: Callable[[], None] = lambda: None  # ends a wait for frames
    restart: Callable[[], float] | None = None  # begins stream time anew, for live sources


def open_source(
    spec: str | int | Path | Iterable[tuple[float, np.ndarray]],
    *,
    fps: float = 2.0,
    chunk_seconds: float = 1.0,
    pace: Literal["fast", "realtime"] = "fast",
    behind: Behind | None = None,
    sampling: Literal["pts", "published"] = "pts",
    size: tuple[int, int] | None = None,
    factor: int = FACTOR,
    min_pixels: int = MIN_PIXELS,
    max_pixels: int = MAX_PIXELS,
    start: float = 0.0,
    duration: float | None = None,
    buffer: int = 2,
    reconnect: Backoff | None = Backoff(),  # noqa: B008 (frozen)
    timeout: float = 10.0,
    on_status: Callable[[str], None] | None = None,
    options: Mapping[str, str] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Source:
    """Opens a video stream.

    Args:
      spec: a file, an http(s) URL, `rtsp://...` (or another live URL that FFmpeg reads), a camera index (0 or "0"), a
        registered `scheme:rest` (e.g. `synthetic:match?seed=3&minutes=10`), a `FrameSource`, or any iterable of (seconds,
        uint8 RGB (H, W, 3)).
      fps: frames per second that the model sees; fps * chunk_seconds must be an even whole number.
      chunk_seconds: length of a chunk.
      pace: "fast" reads as fast as the session asks; "realtime" plays at one second per second from the first request on.
        Live sources are always real time.
      behind: what a real-time source does when the session is late: "drop" skips to the newest whole chunk, "merge" covers the
        skipped span with one chunk's worth of frames spread evenly over it, "wait" lets the lag grow (not for live sources).
      sampling: "pts" takes the frames on screen at even times (`PtsSampler`); "published" repeats frames exactly as
        StreamingVLM's released reader does (`PublishedSampler`).
      size: (height, width) of every frame, instead of the published resize rule.
      factor, min_pixels, max_pixels: of the resize rule (`smart_resize`). Once the first chunk has its size, later ones (the
        resolution may change) have at most as many vision tokens.
      start: seconds to skip; stream time begins there. Not for live sources.
      duration: seconds to read, rounded up to whole chunks.
      buffer: chunks that may wait in memory.
      reconnect: how to come back to a live source that stops; None gives up at once.
      timeout: seconds after which a peer that says nothing counts as gone.
      on_status: told about lost and regained connections, on the decoding thread; messages hold no credentials.
      options: for FFmpeg, e.g. {"video_size": "1280x720", "framerate": "30"} for a camera.
      clock: wall time in seconds.
    Raises:
      ConfigError: settings that cannot work.
      SourceError: the source cannot be opened; in iteration, what ended it early.
    """
    count = frames_per_chunk(fps, chunk_seconds)
    _check_choices(pace, behind, sampling, start, duration, buffer, size, factor)
    model_size = ModelSize(count, size, factor, min_pixels, max_pixels)
    smart_resize(factor, factor, factor=factor, min_pixels=min_pixels, max_pixels=max_pixels)  # impossible bounds fail here
    opened = _open(spec, start=start, timeout=timeout, options=options, reconnect=reconnect, on_status=on_status, clock=clock)
    realtime = opened.info.live or pace == "realtime"
    if opened.info.live and behind == "wait":
        opened.close()
        raise ConfigError(f'{opened.info.name} is live and cannot wait; expected behind="drop" or "merge".')
    chunk_queue = ChunkQueue(buffer=buffer, seconds=chunk_seconds, behind=behind or "drop", clock=clock if realtime else None)
    if opened.origin is not None:
        chunk_queue.begin(opened.origin)
    make_sampler = functools.partial(PtsSampler if sampling == "pts" else PublishedSampler, fps, count, start)
    chunks = None if duration is None else math.ceil(duration / chunk_seconds - 1e-9)
    work = functools.partial(
        pump,
        opened.frames,
        make_sampler,
        model_size,
        chunk_queue,
        opened.close,
        start=start,
        seconds=chunk_seconds,
        chunks=chunks,
        restart=opened.restart,
    )
    return Source(opened.info, chunk_queue, threading.Thread(target=work, name="svlm-decode", daemon=True), opened.interrupt)


def frames_per_chunk(fps: float, chunk_seconds: float) -> int:
    if not (fps > 0 and chunk_seconds > 0):
        raise ConfigError(f"fps={fps:g} and chunk_seconds={chunk_seconds:g} must both be positive.")
    count = fps * chunk_seconds
    if abs(count - round(count)) > 1e-6 or round(count) % TEMPORAL_PATCH or round(count) < 1:
        raise ConfigError(
            f"fps={fps:g} with chunk_seconds={chunk_seconds:g} makes {count:g} frames a chunk; expected an even whole number,"
            f" because the model reads frames in pairs."
        )
    return round(count)


def _check_choices(
    pace: str,
    behind: str | None,
    sampling: str,
    start: float,
    duration: float | None,
    buffer: int,
    size: tuple[int, int] | None,
    factor: int,
) -> None:
    choices = {
        "pace": (pace, ("fast", "realtime")),
        "behind": (behind, ("drop", "merge", "wait", None)),
        "sampling": (sampling, ("pts", "published")),
    }
    for name, (value, allowed) in choices.items():
        if value not in allowed:
            raise ConfigError(f"{name}={value!r} is not known; expected one of {', '.join(filter(None, allowed))}.")
    if start < 0:
        raise ConfigError(f"start={start:g} must not be negative.")
    if duration is not None and duration <= 0:
        raise ConfigError(f"duration={duration:g} must be positive.")
    if buffer < 1:
        raise ConfigError(f"buffer={buffer} must be at least 1 chunk.")
    if size is not None and (min(size) < factor or size[0] % factor or size[1] % factor):
        raise ConfigError(f"size={size[0]}x{size[1]} must be positive multiples of {factor}.")


def _open(spec: Any, *, start: float, **live: Any) -> _Opened:
    """Finds out what `spec` means and opens it."""
    if isinstance(spec, bool) or spec is None:
        raise SourceError(f"A source cannot be {spec!r}; expected a path, a URL, a camera index or frames.")
    if isinstance(spec, int) or (isinstance(spec, str) and spec.isdecimal()):
        index = int(spec)
        if index < 0:
            raise SourceError(f"Camera {index} does not exist; indices begin at 0.")
        device, format = camera(index)
        return _open_live(device, f"camera {index}", "webcam", start=start, format=format, **live)
    if not isinstance(spec, str | os.PathLike):
        return _open_frames(spec, start, live["clock"])
    text = os.fspath(spec)
    scheme, colon, rest = text.partition(":")
    if colon and scheme in SCHEMES:
        return _open_frames(_frames_of(scheme)(rest), start, live["clock"], name=text)
    if isinstance(spec, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", spec):
        return _open_url(spec, scheme.lower(), start=start, **live)
    return _open_file(text, start, live["timeout"], live["options"])


def _open_file(path: str, start: float, timeout: float, options: Mapping[str, str] | None) -> _Opened:
    if not os.path.exists(path):
        raise SourceError(f"{path} does not exist; expected a video file, a URL or a camera index.")
    if os.path.isdir(path):
        raise SourceError(f"{path} is a folder; a video file was expected.")
    if not os.access(path, os.R_OK):
        raise SourceError(f"{path} cannot be read: permission denied.")
    if os.path.isfile(path) and os.path.getsize(path) == 0:
        raise SourceError(f"{path} is empty (0 bytes); a video file was expected.")
    # The prefix keeps FFmpeg from reading a scheme into a name with a colon.
    reader = VideoReader(f"file:{path}", path, timeout=timeout, start=start, options=options)
    return _opened(reader, "file")


def _open_url(url: str, scheme: str, *, start: float, **live: Any) -> _Opened:
    if scheme == "file":
        return _open_file(url2pathname(url.removeprefix("file://")), start, live["timeout"], live["options"])
    name = mask(url)
    if scheme not in ("http", "https"):
        return _open_live(url, name, scheme, start=start, **live)
    live["options"] = {**HTTP_OPTIONS, **(live["options"] or {})}
    reader = VideoReader(url, name, timeout=live["timeout"], start=start, live=None, endless=False, options=live["options"])
    if not reader.live:
        return _opened(reader, "http")
    # A stream that does not know its length is live; it may deliver segments of several seconds at once.
    return _open_live(url, name, "http", start=start, reader=reader, endless=False, early=math.inf, **live)


def _open_live(
    url: str,
    name: str,
    kind: str,
    *,
    start: float,
    timeout: float,
    options: Mapping[str, str] | None,
    reconnect: Backoff | None,
    on_status: Callable[[str], None] | None,
    clock: Callable[[], float],
    reader: VideoReader | None = None,
    format: str | None = None,
    endless: bool = True,
    early: float = EARLY,
) -> _Opened:
    if start > 0:
        if reader is not None:
            reader.close()
        raise ConfigError(f"{name} is live; start={start:g} cannot be reached, expected 0.")
    options = {**(RTSP_OPTIONS if kind == "rtsp" else {}), **(options or {})}

    def connect() -> VideoReader:
        return VideoReader(url, name, timeout=timeout, live=True, endless=endless, format=format, options=options)

    first = reader or connect()
    live_clock = LiveClock(clock, early)

    def frames(chunk_queue: ChunkQueue) -> Iterator[Decoded]:
        return live_frames(
            first, connect, live_clock, backoff=reconnect, wait=chunk_queue.wait_closed, on_status=on_status or (lambda _: None)
        )

    return _Opened(_opened(first, kind).info, frames, first.close, live_clock.origin, restart=live_clock.restart)


def _opened(reader: VideoReader, kind: str) -> _Opened:
    info = SourceInfo(reader.name, kind, reader.width, reader.height, reader.fps, reader.duration, reader.live)
    return _Opened(info, lambda chunk_queue: iter(reader), reader.close)


def _open_frames(frames: Any, start: float, clock: Callable[[], float], name: str = "frames") -> _Opened:
    if not isinstance(frames, Iterable):
        raise SourceError(f"A source cannot be {type(frames).__name__}; expected a path, a URL, a camera index or frames.")
    if not (isinstance(frames, FrameSource) and frames.live):
        close = frames.end if isinstance(frames, FrameSource) else lambda: None
        info = getattr(frames, "info", None)
        info = dataclasses.replace(info, name=name) if isinstance(info, SourceInfo) else SourceInfo(name, "frames")
        return _Opened(info, lambda chunk_queue: array_frames(frames), close, interrupt=close)
    if start > 0:
        raise ConfigError(f"{name} are live; start={start:g} cannot be reached, expected 0.")
    live_clock = LiveClock(clock, EARLY)
    return _Opened(
        SourceInfo(name, "frames", live=True),
        lambda chunk_queue: live_clock.restamp(array_frames(frames)),
        frames.end,
        live_clock.origin,
        frames.end,
        live_clock.restart,
    )
