"""A video file that is playable at any moment of its growth: MP4 in fragments of about a second (ISO/IEC 14496-12, 8.8)."""

import contextlib
import dataclasses
import io
import math
import os
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

import av
import av.error
import numpy as np

from svlm_jax.errors import OutputError
from svlm_jax.host.files import check_target, writing
from svlm_jax.output.base import Closing

TICKS = 60_000  # a second: whole numbers of it for the usual frame rates, and not more than MPEG-4 Part 2 can hold
FRAGMENT = 1_000_000  # microseconds
OPTIONS = {
    "movflags": "delay_moov+default_base_moof",  # the header waits for the first fragment, when all parameters are known
    "frag_duration": str(FRAGMENT),
    "max_interleave_delta": str(2 * FRAGMENT),  # where there is no sound, pictures do not wait longer for it
    "flush_packets": "1",
}
# No frames in the encoder's hands: each one is in the file with its fragment.
ENCODERS = {"libx264": {"preset": "veryfast", "tune": "zerolatency", "crf": "20"}, "mpeg4": {}}
MPEG4_BITS = 0.2  # per pixel


class _WholeWrites(io.FileIO):
    """An unbuffered file that FFmpeg writes through.

    problem: what the system said, e.g. "No space left on device"; of FFmpeg's calls, not all hand it on.
    """

    problem: OSError | None = None

    def write(self, data: Any) -> int:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self.problem = error
            raise
        return len(data)


@dataclasses.dataclass(frozen=True)
class Look:
    """How pictures are to be shown.

    Attributes:
      size: (height, width) in pixels, even.
      rate: frames per second, about.
      aspect: width of a pixel over its height.
      colour: the codec's fields color_range, colorspace, color_primaries and color_trc.
    """

    size: tuple[int, int]
    rate: float
    aspect: Fraction = Fraction(1)
    colour: Mapping[str, int] = dataclasses.field(default_factory=dict)


class Mp4Writer(Closing):
    """Encodes pictures and copies sound into a file, OutputError when that fails. `begin` comes before all of them."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path = check_target(path)
        with self._writing():
            self._file = _WholeWrites(self.path, "wb")
            self._container = av.open(self._file, "w", format="mp4", options=OPTIONS)
        self._video: av.VideoStream | None = None
        self._audio: av.AudioStream | None = None
        self._repack: av.BitStreamFilterContext | None = None
        self._least_picture = self._least_sound = 0  # ticks; stamps must rise, and those of a damaged original may not
        self._closed = False

    def begin(self, look: Look, audio: av.AudioStream | None = None) -> None:
        """Lays out the file. `audio` is the stream whose packets will be copied; see `can_copy`."""
        name = next((name for name in ENCODERS if name in av.codecs_available), None)
        if name is None:
            raise OutputError(f"{self.path} cannot be written: this PyAV has no encoder of {', '.join(ENCODERS)}.")
        with self._writing():
            rate = Fraction(look.rate).limit_denominator(1001)
            video = self._container.add_stream(name, rate=rate, options=dict(ENCODERS[name]))
            assert isinstance(video, av.VideoStream)
            video.height, video.width = look.size
            video.pix_fmt = "yuv420p"
            context = video.codec_context
            context.time_base = Fraction(1, TICKS)
            context.sample_aspect_ratio = look.aspect
            context.gop_size = max(1, round(2 * rate))
            if name == "mpeg4":
                context.bit_rate = int(MPEG4_BITS * look.size[0] * look.size[1] * rate)
            for field, value in look.colour.items():
                setattr(context, field, value)
            self._video = video
            if audio is not None:
                self._audio = self._container.add_stream_from_template(audio)
                if audio.codec_context.name == "aac" and not audio.codec_context.extradata:  # as in MPEG-TS
                    self._repack = av.BitStreamFilterContext("aac_adtstoasc", audio)

    def can_copy(self, audio: av.AudioStream) -> bool:
        return audio.codec_context.name in self._container.supported_codecs

    def picture(self, planes: np.ndarray, time: float, duration: float) -> None:
        """A picture, shown at `time` (seconds), or right after the one before if that is later, for `duration`.

        planes: uint8 (height * 3 / 2, width), as PyAV's yuv420p.
        """
        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        frame.time_base = Fraction(1, TICKS)
        frame.pts = max(round(time * TICKS), self._least_picture)
        self._least_picture = frame.pts + 1
        frame.duration = round(duration * TICKS)
        assert self._video is not None
        with self._writing():
            self._container.mux(self._video.encode(frame))

    def sound(self, packet: av.Packet, time: float) -> None:
        """A packet of sound to be heard at `time` (seconds), or right after the one before if that is later."""
        assert self._audio is not None
        packet.pts = packet.dts = max(round(time / packet.time_base), self._least_sound)
        # MP4 counts samples: stamps that are one sample apart stay apart.
        self._least_sound = packet.pts + math.ceil(1 / (self._audio.codec_context.sample_rate * packet.time_base))
        with self._writing():
            for part in self._repack.filter(packet) if self._repack else [packet]:
                part.stream = self._audio
                self._container.mux(part)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        with self._writing():
            try:
                if self._video is not None:
                    self._container.mux(self._video.encode(None))
            finally:
                self._close()

    def _close(self) -> None:
        try:
            self._container.close()
        finally:
            self._file.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        with writing(self.path, av.error.FFmpegError):
            try:
                yield
            except av.error.FFmpegError as error:
                if (refused := self._file.problem) is None:
                    raise
                raise OSError(refused.errno, refused.strerror) from error
