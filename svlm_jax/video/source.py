"""Video in: files, URLs, cameras, RTSP streams and frames of one's own, as chunks of model-sized frames."""

import dataclasses
import functools
import math
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal, Self

import numpy as np

from svlm_jax.errors import ConfigError
from svlm_jax.host.retry import Backoff
from svlm_jax.models.resize_rule import PUBLISHED, ResizeRule
from svlm_jax.video.chunk import Chunk, SourceInfo
from svlm_jax.video.chunk_queue import Behind, ChunkQueue
from svlm_jax.video.container import MAX_INPUT_PIXELS
from svlm_jax.video.decode_thread import ModelSize, pump
from svlm_jax.video.frame_source import FrameSource
from svlm_jax.video.opening import How, open_spec, picture_span, register_scheme
from svlm_jax.video.sampler import PtsSampler, PublishedSampler

__all__ = ["Backoff", "Chunk", "FrameSource", "Source", "SourceInfo", "open_source", "picture_span", "register_scheme"]


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


def open_source(
    spec: str | int | Path | Iterable[tuple[float, np.ndarray]],
    *,
    fps: float = 2.0,
    chunk_seconds: float = 1.0,
    pace: Literal["fast", "realtime"] = "fast",
    behind: Behind | None = None,
    sampling: Literal["pts", "published"] = "pts",
    resize: ResizeRule = PUBLISHED,
    size: tuple[int, int] | None = None,
    start: float = 0.0,
    duration: float | None = None,
    buffer: int = 2,
    reconnect: Backoff | None = Backoff(),  # noqa: B008 (frozen)
    timeout: float = 10.0,
    on_status: Callable[[str], None] | None = None,
    options: Mapping[str, str] | None = None,
    variant: int | None = None,
    max_input_pixels: int = MAX_INPUT_PIXELS,
    clock: Callable[[], float] = time.monotonic,
) -> Source:
    """Opens a video stream.

    Args:
      spec: a file, a pipe ("-" is standard input), an http(s) URL, `rtsp://...` (or another live URL that FFmpeg reads), a
        camera index (0 or "0"), a registered `scheme:rest` (e.g. `synthetic:match?seed=3&minutes=10`), a `FrameSource`, or
        any iterable of (seconds, uint8 RGB (H, W, 3)).
      fps: frames per second that the model sees; a chunk must have a multiple of the frames of a temporal grid (two).
      chunk_seconds: length of a chunk.
      pace: "fast" reads as fast as the session asks; "realtime" plays at one second per second from the first request on.
        Live sources are always real time.
      behind: what a real-time source does when the session is late: "drop" skips to the newest whole chunk, "merge" covers the
        skipped span with one chunk's worth of frames spread evenly over it, "wait" lets the lag grow (not for live sources).
      sampling: "pts" takes the frames on screen at even times (`PtsSampler`); "published" repeats frames exactly as
        StreamingVLM's released reader does (`PublishedSampler`).
      resize: how large frames reach the model (`smart_resize`). Once the first chunk has its size, later ones (the resolution
        may change) have at most as many vision tokens. `Session.open` and `vlm.open` know the rule of their model.
      size: (height, width) of every frame instead.
      start: seconds of the file's own time, which begins where players begin it, at which to begin. Not for live sources.
      duration: seconds to read, rounded up to whole chunks.
      buffer: chunks that may wait in memory.
      reconnect: how to come back to a live source that stops; None gives up at once.
      timeout: seconds after which a peer that says nothing counts as gone.
      on_status: told about lost and regained connections, on the decoding thread; messages hold no credentials.
      options: for FFmpeg, e.g. {"video_size": "1280x720", "framerate": "30"} for a camera.
      variant: of an HLS stream, the height in pixels of the variant to read; None takes the best.
      max_input_pixels: of a picture as it is in the source. What declares more is decoded at a reduced size where its decoder
        can do that, else refused.
      clock: wall time in seconds.
    Raises:
      ConfigError: settings that cannot work.
      SourceError: the source cannot be opened; in iteration, what ended it early.
    """
    count = frames_per_chunk(fps, chunk_seconds, resize.grid_frames)
    _check_choices(pace, behind, sampling, start, duration, buffer)
    if max_input_pixels < 1:
        raise ConfigError(f"max_input_pixels={max_input_pixels} must be positive.")
    model_size = ModelSize(count, resize if size is None else dataclasses.replace(resize, size=size))
    how = How(start, timeout, dict(options or {}), reconnect, on_status or (lambda _: None), clock, variant, max_input_pixels)
    opened = open_spec(spec, how)
    realtime = opened.info.live or pace == "realtime"
    if opened.info.live and behind == "wait":
        opened.close()
        raise ConfigError(f'{opened.info.name} is live and cannot wait; expected behind="drop" or "merge".')
    chunk_queue = ChunkQueue(buffer=buffer, seconds=chunk_seconds, behind=behind or "drop", clock=clock if realtime else None)
    if opened.origin is not None:
        chunk_queue.begin(opened.origin)
    make_sampler = functools.partial(
        PtsSampler if sampling == "pts" else PublishedSampler, fps, count, start, opened.info.begin
    )
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


def frames_per_chunk(fps: float, chunk_seconds: float, grid_frames: int) -> int:
    """Frames of a chunk; ConfigError unless they are whole temporal grids of `grid_frames` frames."""
    if not (fps > 0 and chunk_seconds > 0):
        raise ConfigError(f"fps={fps:g} and chunk_seconds={chunk_seconds:g} must both be positive.")
    count = fps * chunk_seconds
    if abs(count - round(count)) > 1e-6 or round(count) % grid_frames or round(count) < 1:
        expected = {1: "a whole number", 2: "an even whole number"}.get(grid_frames, f"a multiple of {grid_frames}")
        raise ConfigError(
            f"fps={fps:g} with chunk_seconds={chunk_seconds:g} makes {count:g} frames a chunk; expected {expected},"
            f" because the model reads {grid_frames} frames at a time."
        )
    return round(count)


def _check_choices(
    pace: str,
    behind: str | None,
    sampling: str,
    start: float,
    duration: float | None,
    buffer: int,
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
