"""Decoded frames of one opened video, in time order, on the file's own timeline: time 0 is where players begin it."""

import collections
import contextlib
import dataclasses
import functools
import itertools
import os
import time
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import IO

import av
import av.error
import numpy as np

from svlm_jax.errors import SourceError
from svlm_jax.video.container import (
    MAX_INPUT_PIXELS,
    limit_pixels,
    open_container,
    pick_picture,
    pick_sound,
    reason,
)
from svlm_jax.video.resize import display_size
from svlm_jax.video.timeline import QUIET, Timeline

FALLBACK_RATE = 25.0  # frames per second, for streams that neither say their rate nor stamp their frames
PIXEL_ASPECTS = (Fraction(1, 10), Fraction(10))  # width over height; beyond what any format uses lies only damage
RATES = (0.001, 1000.0)  # frames per second; what FFmpeg makes of stamps that do not move is far outside
SEEK_MARGINS = (0.0, 5.0, 30.0)  # s before the wanted time; an index may point behind its key frame
NEAR_CUES = 30.0  # s; an index of key frames that are further apart does not show whether the clock jumps between them
KEPT_BYTES = 64 << 20  # of packets before the wanted time; then decoding begins, wanted or not
SMALL_FILE = 16 << 20  # bytes; read through, undecoded, to know its length
LARGE_PICTURE = 4096 * 2304  # pixels; above it frames are decoded one by one, as each takes much memory
STORES_DURATIONS = ("mov", "avi")  # the picture's own length is in the file, so that what is missing is missing
SAYS_END = ("matroska", "flv")  # the end of the longest stream is in the file
# What holds decoders, in circles that Python would break only some time after a reader is closed.
HELD = ("_frames", "_packets", "_timeline", "_first", "_stream", "sound")


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
      url: what FFmpeg opens. It may hold credentials: it appears in no message. `file` is read in its place.
      name: what messages call it.
      timeout: seconds that opening, and each read, may take.
      start: seconds on the timeline; frames from a key frame before it on are decoded. They are those that reading from the
        beginning gives: the reader jumps only where an index shows that the stamps before `start` can be believed, and else
        passes over packets, or decodes all of them where they have no stamps.
      live: the peer has a clock of its own: lowest latency, and when it stops that is a loss of the peer, not a truncated
        file. None finds out: what knows its duration is not live.
      endless: a live peer never ends: when it hangs up, it is lost.
      seekable: whether reading may go back.
      format, options: FFmpeg's name of the input format, and its options.
      variant: see `pick_picture`.
      max_pixels: of a picture, decoded.
      listen: `heard` collects the packets of sound.
    Attributes:
      begin: seconds of the first picture.
      sound: the stream to listen to, if there is one.
      heard: packets of sound that were passed and their times; whoever listens takes them away.
    Raises:
      SourceError: it cannot be opened, or no frame of it can be decoded; in iteration, that it is truncated, or (PeerLost)
        gone.
    """

    def __init__(
        self,
        url: str,
        name: str,
        *,
        file: IO[bytes] | None = None,
        timeout: float = 10.0,
        start: float = 0.0,
        live: bool | None = False,
        endless: bool = True,
        seekable: bool = True,
        format: str | None = None,
        options: Mapping[str, str] | None = None,
        variant: int | None = None,
        max_pixels: int = MAX_INPUT_PIXELS,
        listen: bool = False,
    ):
        self._max_pixels, self._stopped = max_pixels, False
        self.name, self._endless, self._seekable, self._file = name, endless, seekable, file
        given = dict(options or {})
        self._container = open_container(
            url if file is None else file, name, timeout=timeout, format=format, options=given, max_pixels=max_pixels
        )
        try:
            self._stream = pick_picture(self._container, name, variant)
            limit_pixels(self._stream, name, max_pixels)
            self._base = self._stream.time_base or Fraction(1, 1000)
            self.sound = pick_sound(self._container)
            self.heard: collections.deque[tuple[av.Packet, float]] = collections.deque()
            self._listen = listen
            rates = (self._stream.average_rate, self._stream.guessed_rate, self._stream.codec_context.framerate)
            self.fps = next((float(rate) for rate in rates if rate and RATES[0] <= rate <= RATES[1]), None)
            promised = self._promised()
            self.live = promised is None and self._container.duration is None if live is None else live
            self._decode_in_threads()
            self._reset()
            self._origin = self._declared_origin()
            self._path = url.removeprefix("file:") if file is None and url.startswith("file:") else None
            self._packets = self._packets_from(start)
            self._frames = self._decode()
            self._first = next(self._frames, None)
            if self._first is None:
                raise SourceError(self._no_frame(start))
            self.height, self.width = self._first.size
            self.begin = self._declared_begin(start)
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[Decoded]:
        if self._first is not None:
            yield self._first
            self._first = None
        yield from self._frames

    @functools.cached_property
    def duration(self) -> float | None:
        """Seconds that the picture lasts, as far as the file says or is small enough to be read through; None if live."""
        promised = self._promised()
        if self.live or promised is not None:
            return None if self.live else promised
        if self._path is not None and self._seekable and os.path.getsize(self._path) <= SMALL_FILE:
            with contextlib.closing(VideoReader(f"file:{self._path}", self.name)) as twin:
                begin, end = twin.span()
            return end - begin
        declared = self._container.duration
        return None if declared is None else max(0.0, self._end_said() - self._stamped_begin())

    @property
    def end(self) -> float:
        """Seconds at which the last decoded frame stops being shown."""
        return 0.0 if self._last is None else self._last + self._step

    @property
    def aspect(self) -> Fraction | None:
        """Width of a pixel over its height, None if square, not said, or absurd."""
        return _aspect(self._stream)

    def stop(self) -> None:
        """Ends an iteration, on whichever thread, before its next packet, as if the file ended there."""
        self._stopped = True

    def close(self) -> None:
        """Gives back all that FFmpeg holds; nothing can be read afterwards."""
        for name in HELD:
            self.__dict__.pop(name, None)
        self._container.close()
        if self._file is not None:
            self._file.close()

    # ---------------------------------------------------------------------------------- what the container says

    def _is(self, *names: str) -> bool:
        return not set(names).isdisjoint(self._container.format.name.split(","))

    def _decode_in_threads(self) -> None:
        context = self._stream.codec_context
        large = context.width * context.height > LARGE_PICTURE
        # Frame threads decode faster but hold back one frame each, which a live stream cannot afford.
        context.thread_type = "SLICE" if self.live or large else "AUTO"

    def _declared_origin(self) -> float | None:
        """The container's time, in seconds, at time 0; None where the first picture decides."""
        if self.live:
            return None
        start = self._container.start_time
        return 0.0 if start is None else start / av.time_base

    def _promised(self) -> float | None:
        """Seconds that the file says its picture lasts, where it stores that."""
        fragments = self._is("mov") and not self._stream.frames  # then it is the length of the first of them
        if self._is(*STORES_DURATIONS) and self._stream.duration is not None and not fragments:
            return float(self._stream.duration * self._base)
        return None

    def _stamped_begin(self) -> float:
        start = self._stream.start_time
        return 0.0 if start is None else float(start * self._base)

    def _declared_begin(self, start: float) -> float:
        assert self._first is not None
        return self._first.time if start <= 0 else max(0.0, self._stamped_begin() - (self._origin or 0.0))

    def _end_said(self) -> float:
        """The container's time, in seconds, at its end."""
        container = self._container
        # Matroska says when it ends, others how long it is.
        begin = 0 if self._is("matroska") else container.start_time or 0
        return ((container.duration or 0) + begin) / av.time_base

    def _no_frame(self, start: float) -> str:
        if broken := getattr(self._file, "problem", None):
            return f"{self.name} cannot be read: {broken}."
        if start > 0 and self._passed:
            return f"{self.name} ends before {start:g} s; start={start:g} is after that."
        context = self._stream.codec_context
        within = "" if context.width * context.height else f" within {self._max_pixels} pixels (--max-input-pixels)"
        return f"{self.name} holds no video frame that can be decoded{within}."

    # ------------------------------------------------------------------------------------------------- reading

    def _reset(self) -> None:
        """Nothing was read yet."""
        self._last: float | None = None
        self._step = 1 / (self.fps or FALLBACK_RATE)
        self._seen: dict[int, float] = {}  # s, as stamped; the latest end of any packet, by stream
        self._ended: str | None = None  # what FFmpeg said when it could read no further
        self._reached, self._unstamped = 0.0, 0  # s, as the timeline stamps, and packets without a stamp
        self._passed = 0  # packets before `start`
        self._timeline = Timeline(
            self._stream, self.sound, self.fps or FALLBACK_RATE, live=self.live, durations=self._is("mov")
        )

    def _packets_from(self, start: float) -> Iterator[av.Packet]:
        """Packets on the timeline, from a key frame before `start` on."""
        if start <= 0:
            return self._timeline.repair(self._demux())
        if self._promised() is not None and start >= self._declared_end():
            raise SourceError(f"{self.name} ends at {self._declared_end():.1f} s; start={start:g} is after that.")
        for margin in SEEK_MARGINS if self._may_seek(start) else ():
            self._container.seek(self._ticks(start - margin), stream=self._stream, backward=True)
            self._reset()
            packets = self._timeline.repair(self._demux())
            first = next((packet for packet in packets if packet.stream_index == self._stream.index), None)
            if first is not None and first.pts is not None and first.pts <= self._ticks(start):
                return self._pass_over(itertools.chain([first], packets), start, keep=1)
        self._rewind()
        return self._pass_over(self._timeline.repair(self._demux()), start, keep=2)

    def _declared_end(self) -> float:
        return self._stamped_begin() - (self._origin or 0.0) + (self._promised() or 0.0)

    def _ticks(self, seconds: float) -> int:
        """A time on the timeline as the file stamps it, where its clock never jumped."""
        return int(max(0.0, seconds + (self._origin or 0.0)) / self._base)

    def _may_seek(self, start: float) -> bool:
        """Whether an index shows that the stamps up to `start` rise steadily, so that time is what they say."""
        if not self._seekable or self._stream.index_entries is None:
            return False
        try:
            if self._is("matroska"):  # its index is read with the first jump
                self._container.seek(self._ticks(start), stream=self._stream, backward=True)
        except av.error.FFmpegError:
            return False
        entries = self._stream.index_entries
        if self._is("mov"):
            count = next((i for i, entry in enumerate(entries) if entry.timestamp > self._ticks(start)), len(entries))
            most = QUIET
        elif self._is("matroska"):
            count, most = len(entries), NEAR_CUES
        else:
            return False
        known = entries[:count]
        times = np.array([entry.timestamp for entry in known], np.float64) * float(self._base)
        places = np.array([entry.pos for entry in known])
        if len(times) < 2 or times[0] > self._stamped_begin() + most or times[-1] < start + (self._origin or 0.0) - most:
            return False
        steps = np.diff(times)
        rises = bool((steps > 0).all() and (steps <= most).all())
        return rises and (self._is("mov") or bool((np.diff(places) > 0).all()))

    def _rewind(self) -> None:
        """Back to the first packet, if anything was read."""
        if self._seekable and (self._seen or self._is("matroska")):
            with contextlib.suppress(av.error.FFmpegError):
                self._container.seek(self._container.start_time or 0, backward=True)
        self._reset()

    def _pass_over(self, packets: Iterator[av.Packet], start: float, keep: int) -> Iterator[av.Packet]:
        """Leaves out packets before the last `keep` key frames that are shown at `start` or before.

        Where packets do not say when they are shown, none is left out.
        """
        wanted, held, size = self._ticks(start), list[av.Packet](), 0
        keys: collections.deque[int] = collections.deque(maxlen=keep)  # indices into `held`
        for packet in packets:
            mine = packet.stream_index == self._stream.index
            if mine and packet.size and packet.is_keyframe and packet.pts is not None and packet.pts <= wanted:
                keys.append(len(held))
                first = keys[0]
                self._passed += first
                held, size = held[first:], sum(kept.size for kept in held[first:])
                keys = collections.deque((key - first for key in keys), maxlen=keep)
            held.append(packet)
            size += packet.size
            reached = mine and packet.size and (packet.pts is None or (packet.dts or packet.pts) > wanted)
            if reached or size > KEPT_BYTES:
                break
        yield from held
        yield from packets

    def _demux(self) -> Iterator[av.Packet]:
        """Packets as they are in the file."""
        packets = self._container.demux()
        while not self._stopped:
            try:
                packet = next(packets)
            except (StopIteration, av.error.EOFError):
                self._ended = getattr(self._file, "problem", None)
                return
            except IndexError:  # of a stream that was not there at the beginning: reading goes on behind it
                packets = self._container.demux()
                continue
            except av.error.FFmpegError as error:
                self._ended = getattr(self._file, "problem", None) or reason(error)
                return
            if packet.pts is not None and packet.time_base is not None:
                end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                self._seen[packet.stream_index] = max(self._seen.get(packet.stream_index, end), end)
            yield packet

    def _decode(self) -> Iterator[Decoded]:
        """Every frame that can be decoded; damaged packets are passed over, as players do."""
        for packet in self._packets:
            if packet.stream_index == self._stream.index:
                self._note(packet)
                if packet.has_sidedata("encryption_info"):
                    raise SourceError(f"{self.name} is encrypted: no frame of it can be decoded without its key.")
                yield from self._decoded(packet)
            elif self._listen and self.sound is not None and packet.stream_index == self.sound.index and packet.pts is not None:
                self.heard.append((packet, float(packet.pts * packet.time_base) - (self._origin or 0.0)))
        if self._last is not None:  # FFmpeg's own last packet may be missing behind a late stream
            yield from self._decoded(None)
        self._check_end()

    def _decoded(self, packet: av.Packet | None) -> Iterator[Decoded]:
        """Frames that a packet completes; without one, those that the decoder still holds at the end."""
        begin = time.perf_counter()
        try:
            frames = self._stream.decode(packet)
        except av.error.FFmpegError:
            return
        for frame in frames:
            cost = time.perf_counter() - begin
            moment, duration = self._stamp(frame)
            yield Decoded(moment, duration, frame, display_size(frame, self.aspect), cost)
            begin = time.perf_counter()

    def _stamp(self, frame: av.VideoFrame) -> tuple[float, float]:
        """Time and duration of a frame in seconds; time never goes back, and a missing stamp follows the one before."""
        if frame.pts is None:
            moment = 0.0 if self._last is None else self._last + self._step
            self._origin = 0.0 if self._origin is None else self._origin
        else:
            stamp = float(frame.pts * self._base)
            if self._origin is None or (self._last is None and stamp < self._origin):
                self._origin = stamp
            elif self._last is None and self._is("avi"):  # it stores no times; those that FFmpeg makes begin with decoding
                late = self._stream.codec_context.reorder_depth * self._step
                self._origin += max(0.0, min(late, stamp - self._stamped_begin()))
            moment = stamp - self._origin
        said = float(frame.duration * self._base) if frame.duration else 0.0
        if self._last is not None:
            moment = max(moment, self._last)
        self._step = said or float(self._timeline.step * self._base)
        self._step = min(self._step, max(QUIET, self._timeline.paid))  # no claim makes a picture stay for ever
        self._last = moment
        return moment, self._step

    def _check_end(self) -> None:
        if self._stopped:
            return
        if self.live:
            if self._ended or self._endless:
                raise PeerLost(f"{self.name} stopped: {self._ended or 'the peer closed the connection'}.")
            return
        slack = max(1.0, 2 * self._step)
        promised = self._promised()
        if promised is not None:
            reached, whole = self._seen.get(self._stream.index, 0.0), self._stamped_begin() + promised
        else:
            says = self._is(*SAYS_END) and self._container.duration is not None
            reached, whole = max(self._seen.values(), default=0.0), self._end_said() if says else 0.0
        if self._ended is not None and self._file is not None and self._last is not None:
            raise SourceError(f"{self.name} cannot be read beyond {self.end:.1f} s: {self._ended}.")
        if self._last is not None and max(reached, self._reached) < whole - slack:
            whole -= self._origin or 0.0
            raise SourceError(f"{self.name} is truncated: decoded {self.end:.1f} s of {whole:.1f} s.")
        if self._ended is not None and self._last is not None:
            raise SourceError(f"{self.name} cannot be read beyond {self.end:.1f} s: {self._ended}.")

    def _note(self, packet: av.Packet) -> None:
        """Remembers how far the picture reaches, decoded or not."""
        stamp = packet.dts if packet.pts is None else packet.pts
        if not packet.size:
            return
        if stamp is None:
            self._unstamped += 1
            return
        length = min(packet.duration or self._timeline.step, int(max(QUIET, self._timeline.paid) / self._base))
        self._reached = max(self._reached, float((stamp + length) * self._base))

    def span(self) -> tuple[float, float]:
        """Seconds at which the picture begins and ends, by reading every packet; nothing can be decoded afterwards."""
        for packet in self._packets:
            if packet.stream_index == self._stream.index:
                self._note(packet)
        reached = self._reached - (self._origin or 0.0) if self._reached else 0.0
        return self.begin, max(reached, self.begin + self._unstamped * float(self._timeline.step * self._base))


def _aspect(stream: av.VideoStream) -> Fraction | None:
    aspect = stream.sample_aspect_ratio
    return aspect if aspect and PIXEL_ASPECTS[0] <= aspect <= PIXEL_ASPECTS[1] and aspect != 1 else None
