"""Opening a container with FFmpeg: which of its streams is the picture, and a sentence for everything that cannot be opened."""

import math
from collections.abc import Mapping
from typing import IO

import av
import av.error
from av.stream import Discard, Disposition

from svlm_jax.errors import SourceError

STILL_FORMATS = ("image2", "_pipe", "tty")  # pictures, and text that FFmpeg would draw as a picture
NO_PICTURE = Disposition.attached_pic | Disposition.timed_thumbnails
MAX_INPUT_PIXELS = 35_651_584  # the largest picture of H.264, HEVC and AV1 at level 6.2: 8K
MOST_PIXELS = 2**31 - 1  # that FFmpeg can be told
# Decoders that can leave out detail (FFmpeg's `lowres`), at most to an eighth of each side.
REDUCING = ("mjpeg", "mpeg1video", "mpeg2video", "mpeg4", "h263", "flv", "msmpeg4v1", "msmpeg4v2", "msmpeg4", "wmv1", "wmv2")
MOST_REDUCED = 3  # halvings


def open_container(
    what: str | IO[bytes], name: str, *, timeout: float, format: str | None, options: Mapping[str, str], max_pixels: int
) -> av.container.InputContainer:
    """An opened file, URL or file object; SourceError, which holds no credentials, when that fails.

    max_pixels: pictures that declare more are not even probed.
    """
    given = {"max_pixels": str(min(max_pixels, MOST_PIXELS)), **options}
    try:
        return av.open(what, "r", timeout=timeout, format=format, options=given, metadata_errors="replace")
    except av.error.EOFError:
        problem = f"{name} ends before its first video frame"
    except av.error.InvalidDataError:
        problem = f"{name} is not a video that can be decoded"
        if isinstance(what, str) and _begins_with(what, b"#EXTM3U"):
            problem = f"{name} is a playlist whose first segment is missing or is not a video that can be decoded"
        elif isinstance(what, str) and _begins_with(what, b"ftyp", at=4):
            problem = f"{name} is truncated or damaged: the index that an MP4 file keeps at its end is missing"
    except av.error.ExitError:
        problem = f"{name} cannot be opened: no answer within {timeout:g} s"
    except (av.error.FFmpegError, OSError) as error:
        problem = f"{name} cannot be opened: {reason(error)}"
    if broken := getattr(what, "problem", None):
        problem = f"{name} cannot be opened: {broken}"
    # Raised out here, so that FFmpeg's error, which quotes the URL with its credentials, is not even its context.
    raise SourceError(f"{problem}.")


def reason(error: BaseException) -> str:
    """FFmpeg's words without the URL."""
    if isinstance(error, av.error.ExitError):
        return "no data within the time limit"
    return (getattr(error, "strerror", None) or type(error).__name__).rstrip(".")


def pick_picture(container: av.container.InputContainer, name: str, variant: int | None = None) -> av.VideoStream:
    """The stream to watch: of those flagged as default, if any, the largest; never a cover picture.

    variant: of an adaptive stream (HLS), the height in pixels of the variant to take instead. The others are not downloaded.
    """
    if container.format.name.endswith(STILL_FORMATS):
        raise SourceError(f"{name} is not a video (FFmpeg reads it as {container.format.name}); a video file was expected.")
    pictures = [stream for stream in container.streams.video if not stream.disposition & NO_PICTURE]
    streams = [stream for stream in pictures if stream.codec_context is not None]
    if not streams:
        held = "only sound" if container.streams.audio else "no video"
        held = "video that no decoder knows" if pictures else held
        raise SourceError(f"{name} holds {held}; a video stream was expected.")
    if variant is not None:
        heights = sorted({stream.height for stream in streams})
        streams = [stream for stream in streams if stream.height == variant]
        if not streams:
            raise SourceError(f"{name} has no variant of {variant} lines; expected one of {', '.join(map(str, heights))}.")
    best = max(streams, key=lambda stream: (bool(stream.disposition & Disposition.default), *_size(stream), -stream.index))
    if container.format.name in ("hls", "dash"):
        for stream in container.streams.video:
            if stream is not best:
                stream.discard = Discard.all
    return best


def _size(stream: av.VideoStream) -> tuple[int, int]:
    """Pixels of a stream, and the bits a second that a playlist declares for it."""
    declared = stream.metadata.get("variant_bitrate", "")
    return stream.width * stream.height, int(declared) if declared.isdecimal() else stream.codec_context.bit_rate or 0


def pick_sound(container: av.container.InputContainer) -> av.AudioStream | None:
    """The stream to listen to: one that is flagged as default, else the first."""
    return max(
        (stream for stream in container.streams.audio if stream.codec_context is not None),
        key=lambda stream: (bool(stream.disposition & Disposition.default), -stream.index),
        default=None,
    )


def limit_pixels(stream: av.VideoStream, name: str, max_pixels: int) -> None:
    """Lets the decoder make no picture of more than `max_pixels`: by leaving out detail where it can, else SourceError."""
    context = stream.codec_context
    declared = context.width * context.height
    reduced = math.ceil(math.log2(declared / max_pixels) / 2) if declared > max_pixels else 0
    if declared == 0 and context.name in REDUCING:  # so large that it was not even probed
        reduced = MOST_REDUCED
    if reduced > (MOST_REDUCED if context.name in REDUCING else 0):
        raise SourceError(
            f"{name} declares pictures of {context.width}x{context.height} pixels; expected at most {max_pixels} pixels"
            f" (--max-input-pixels)."
        )
    context.options = {"max_pixels": str(min(max_pixels << 2 * reduced, MOST_PIXELS)), "lowres": str(reduced)}


def _begins_with(url: str, mark: bytes, at: int = 0) -> bool:
    """Whether a local file does."""
    try:
        with open(url.removeprefix("file:"), "rb") as file:
            return file.read(at + len(mark))[at:] == mark
    except OSError:
        return False
