"""Decoded frames of one opened video, in time order, with time 0 at its first frame."""

import dataclasses
import time
from collections.abc import Iterator, Mapping
from fractions import Fraction

import av
import av.error
import numpy as np

from svlm_jax.errors import SourceError
from svlm_jax.video.resize import display_size

FALLBACK_RATE = 25.0  # frames per second, for streams that neither say their rate nor stamp their frames
STILL_FORMATS = ("image2", "_pipe", "tty")  # pictures, and text that FFmpeg would draw as a picture
SEEK_MARGINS = (0.0, 5.0, 30.0)  # s before the wanted time; an index may point behind its key frame


class PeerLost(SourceError):
    """A live peer went away; it may come back."""


@dataclasses.dataclass(frozen=True)
class Decoded:
    """A picture, shown from `time` for `duration` (seconds of the stream).

    Attributes:
      frame: as decoded, or uint8 RGB (H, W, 3).
      size: (height, width) upright, pixels square.
      cost: seconds that decoding took.
      gap: stream time was lost right before it.
    """

    time: float
    duration: float
    frame: av.VideoFrame | np.ndarray
    size: tuple[int, int]
    cost: float = 0.0
    gap: bool = False


class VideoReader:
    """A video opened with FFmpeg; iterating decodes it to its end.

    Args:
      url: what FFmpeg opens. It may hold credentials: it appears in no message.
      name: what messages call it.
      timeout: seconds that opening, and each read, may take.
      start: seconds after the first frame; frames from the key frame before it on are decoded.
      live: the peer has a clock of its own: lowest latency, and when it stops that is a loss of the peer, not a truncated
        file. None finds out: what knows its duration is not live.
      endless: a live peer never ends: when it hangs up, it is lost.
      format, options: FFmpeg's name of the input format, and its options.
    Raises:
      SourceError: it cannot be opened, or no frame of it can be decoded; in iteration, that it is truncated, or (PeerLost)
        gone.
    """

    def __init__(
        self,
        url: str,
        name: str,
        *,
        timeout: float = 10.0,
        start: float = 0.0,
        live: bool | None = False,
        endless: bool = True,
        format: str | None = None,
        options: Mapping[str, str] | None = None,
    ):
        self.name, self._endless = name, endless
        self._container = _open(url, name, timeout, format, dict(options or {}))
        try:
            self._stream = self._pick_stream()
            duration = self._declared_duration()
            self.live = duration is None if live is None else live
            # Frame threads decode faster but hold back one frame each, which a live stream cannot afford.
            self._stream.thread_type = "SLICE" if self.live else "AUTO"
            self.duration = None if self.live else duration
            rate = self._stream.average_rate or self._stream.guessed_rate
            self.fps = float(rate) if rate else None
            self._seen_until = 0.0  # s; the latest end of any packet, sound included
            self._origin: float | None = None
            self._last: float | None = None
            self._step = 1 / (self.fps or FALLBACK_RATE)
            self._frames = self._decode()
            self._first = next(self._frames, None)
            if self._first is None:
                raise SourceError(f"{name} holds no video frame that can be decoded.")
            self.height, self.width = self._first.size
            if start > 0:
                self._seek(start)
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[Decoded]:
        if self._first is not None:
            yield self._first
            self._first = None
        yield from self._frames

    @property
    def end(self) -> float:
        """Seconds at which the last decoded frame stops being shown."""
        return 0.0 if self._last is None else self._last + self._step

    @property
    def origin(self) -> float:
        """The container's time, in seconds, at time 0 of the stream; where recordings were spliced, of the present part."""
        return self._origin or 0.0

    def close(self) -> None:
        self._container.close()

    def _pick_stream(self) -> av.video.stream.VideoStream:
        container, name = self._container, self.name
        if container.format.name.endswith(STILL_FORMATS):
            raise SourceError(f"{name} is not a video (FFmpeg reads it as {container.format.name}); a video file was expected.")
        covers = av.stream.Disposition.attached_pic
        streams = [stream for stream in container.streams.video if not stream.disposition & covers]
        if not streams:
            held = "only sound" if container.streams.audio else "no video"
            raise SourceError(f"{name} holds {held}; a video stream was expected.")
        return streams[0]

    def _declared_duration(self) -> float | None:
        """Seconds the container promises, of the video stream if it says."""
        stream, container = self._stream, self._container
        if stream.duration is not None and stream.time_base is not None:
            return float(stream.duration * stream.time_base)
        if container.duration is None:
            return None
        # Matroska says when the video ends, others how long it is.
        begin = container.start_time or 0 if "matroska" in container.format.name else 0
        return (container.duration - begin) / av.time_base

    def _seek(self, start: float) -> None:
        if self.duration is not None and start >= self.duration:
            raise SourceError(f"{self.name} ends at {self.duration:.1f} s; start={start:g} lies behind that.")
        base = self._stream.time_base
        assert base is not None
        for margin in (*SEEK_MARGINS, start):
            goal = max(0.0, start - margin) + (self._origin or 0.0)
            try:
                self._container.seek(int(goal / base), stream=self._stream, backward=True)
            except av.error.FFmpegError:
                return  # not seekable: decode from the beginning, which the iteration still holds
            self._last = None
            self._frames = self._decode()
            self._first = next(self._frames, None)
            if self._first is not None and self._first.time <= start + self._step:
                return

    def _decode(self) -> Iterator[Decoded]:
        """Every frame that can be decoded; damaged packets are passed over, as players do."""
        reason = None
        streams = [self._stream, *self._container.streams.audio[:1]]
        packets = self._container.demux(streams)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                break
            except av.error.EOFError:
                break
            except av.error.FFmpegError as error:
                reason = _reason(error)
                break
            if packet.pts is not None and packet.time_base is not None:
                self._seen_until = max(self._seen_until, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if packet.stream.index != self._stream.index:
                continue
            yield from self._decode_packet(packet)
        self._check_end(reason)

    def _decode_packet(self, packet: av.Packet) -> Iterator[Decoded]:
        begin = time.perf_counter()
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            return
        for frame in frames:
            cost = time.perf_counter() - begin
            moment, duration = self._stamp(frame)
            aspect = frame_aspect(self._stream)
            yield Decoded(moment, duration, frame, display_size(frame, aspect), cost)
            begin = time.perf_counter()

    def _stamp(self, frame: av.VideoFrame) -> tuple[float, float]:
        """Time and duration of a frame in seconds; time never goes back, and a missing stamp follows the one before."""
        base = frame.time_base or self._stream.time_base or Fraction(1, 1000)
        duration = float(frame.duration * base) if frame.duration else 0.0
        if frame.pts is None:
            moment = 0.0 if self._last is None else self._last + self._step
            self._origin = 0.0 if self._origin is None else self._origin
        else:
            stamp = float(frame.pts * base)
            self._origin = stamp if self._origin is None else self._origin
            moment = stamp - self._origin
            if self._last is not None and moment <= self._last:  # a spliced recording: its clock began anew
                moment = self._last + self._step
                self._origin = stamp - moment
        if self._last is not None and duration <= 0:
            duration = moment - self._last
        self._last = moment
        self._step = duration if duration > 0 else self._step
        return moment, self._step

    def _check_end(self, reason: str | None) -> None:
        if self.live:
            if reason or self._endless:
                raise PeerLost(f"{self.name} stopped: {reason or 'the peer closed the connection'}.")
            return
        declared = self.duration
        decoded = max(self.end, self._seen_until - self._origin) if self._origin is not None else 0.0
        if declared is not None and decoded < declared - max(1.0, 2 * self._step):
            raise SourceError(f"{self.name} is truncated: decoded {self.end:.1f} s of {declared:.1f} s.")
        if reason is not None and self._last is not None:
            raise SourceError(f"{self.name} cannot be read beyond {self.end:.1f} s: {reason}.")


def frame_aspect(stream: av.video.stream.VideoStream) -> Fraction | None:
    """Width of a pixel over its height, None if square or not said."""
    aspect = stream.sample_aspect_ratio
    return aspect if aspect and aspect > 0 and aspect != 1 else None


def _open(url: str, name: str, timeout: float, format: str | None, options: dict[str, str]) -> av.container.InputContainer:
    try:
        return av.open(url, timeout=timeout, format=format, options=options)
    except av.error.EOFError:
        problem = f"{name} ends before its first video frame."
    except av.error.InvalidDataError:
        problem = f"{name} is not a video that can be decoded."
        if _is_mp4(url):
            problem = f"{name} is truncated or damaged: the index that an MP4 file keeps at its end is missing."
    except av.error.ExitError:
        problem = f"{name} cannot be opened: no answer within {timeout:g} s."
    except (av.error.FFmpegError, OSError) as error:
        problem = f"{name} cannot be opened: {_reason(error)}."
    # Raised out here, so that FFmpeg's error, which quotes the URL with its credentials, is not even its context.
    raise SourceError(problem)


def _is_mp4(url: str) -> bool:
    """Whether a local file begins as MP4 and MOV do."""
    try:
        with open(url.removeprefix("file:"), "rb") as file:
            return file.read(8)[4:] == b"ftyp"
    except OSError:
        return False


def _reason(error: BaseException) -> str:
    """FFmpeg's words without the URL."""
    if isinstance(error, av.error.ExitError):
        return "no data within the time limit"
    return (getattr(error, "strerror", None) or type(error).__name__).rstrip(".")
