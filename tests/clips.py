"""Small videos for tests, rendered with PyAV. Every frame shows its own number, readable after compression and resizing."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BITS = 12
RED, BLUE = (220, 30, 30), (30, 30, 220)


def picture(number: int, height: int = 112, width: int = 196) -> np.ndarray:
    """uint8 (height, width, 3): above, `number` as white and black bars, most significant left; below, red left, blue right."""
    edges = np.linspace(0, width, BITS + 1).astype(int)
    image = np.empty((height, width, 3), np.uint8)
    for bit in range(BITS):
        image[: height // 2, edges[bit] : edges[bit + 1]] = 235 if number >> (BITS - 1 - bit) & 1 else 20
    image[height // 2 :, : width // 2] = RED
    image[height // 2 :, width // 2 :] = BLUE
    return image


def number(frame: np.ndarray) -> int:
    """The number that a frame, uint8 (3, height, width), shows."""
    _, height, width = frame.shape
    columns = (np.arange(BITS) + 0.5) * width / BITS
    bright = frame.mean(0)[height // 4, columns.astype(int)] > 128
    return int("".join("1" if bit else "0" for bit in bright), 2)


def upright(frame: np.ndarray) -> bool:
    """Whether a frame, uint8 (3, height, width), shows red at the lower left and blue at the lower right."""
    _, height, width = frame.shape
    left, right = frame[:, height * 3 // 4, width // 4], frame[:, height * 3 // 4, width * 3 // 4]
    near = [np.abs(pixel.astype(int) - colour).max() < 45 for pixel, colour in ((left, RED), (right, BLUE))]
    return all(near)


def render(
    path: Path,
    *,
    frames: int = 0,
    rate: Fraction | int = 24,
    times: Sequence[float] | None = None,
    size: tuple[int, int] = (112, 196),
    first: int = 0,
    offset: float = 0.0,
    rotation: int = 0,
    aspect: Fraction | None = None,
    sound: float = 0.0,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    gop: int = 12,
    b_frames: int = 0,
    colorspace: int | None = None,
    options: dict[str, str] | None = None,
    matrix: Sequence[int] | None = None,
) -> Path:
    """Writes a video whose frame i shows the number first + i, at i / rate seconds (or times[i]), all `offset` seconds later.

    `size` is (height, width) as coded; `rotation` goes into the display matrix, with the picture turned so that players show it
    upright; `matrix` goes there as it is. `sound` adds so many seconds of a tone.
    """
    stamps = [Fraction(i) / Fraction(rate) for i in range(frames)] if times is None else [Fraction(t) for t in times]
    # MPEG-2 and MPEG-4 Part 2 count frames, not ticks.
    base = 1 / Fraction(rate) if codec in ("mpeg2video", "mpeg4") else Fraction(1, 90_000)
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=Fraction(rate))
        stream.height, stream.width = size
        stream.pix_fmt = pixel_format
        stream.codec_context.time_base = base
        stream.codec_context.gop_size = gop
        if codec == "libx264":
            stream.options = {"preset": "ultrafast", "bf": str(b_frames)}
        elif b_frames:
            stream.codec_context.max_b_frames = b_frames
        if matrix is not None:
            stream.set_display_matrix(matrix)
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if colorspace is not None:
            stream.codec_context.colorspace = colorspace
        if rotation:
            stream.set_display_rotation(rotation)
        tone = _sound(container, path) if sound else None
        container.start_encoding()
        for i, stamp in enumerate(stamps):
            turned = size[::-1] if rotation % 180 else size
            image = np.rot90(picture(first + i, *turned), -rotation // 90)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            if colorspace is not None:
                frame = frame.reformat(format=pixel_format, dst_colorspace=colorspace)
            frame.pts = round((stamp + Fraction(offset)) / base)
            frame.time_base = base
            container.mux(stream.encode(frame))
        if stamps:
            container.mux(stream.encode())
        if tone is not None:
            for packet in _tone(tone, sound):
                container.mux(packet)
    return path


def render_sound(path: Path, seconds: float = 1.0) -> Path:
    """Writes a file that holds a tone and no video."""
    with av.open(str(path), "w") as container:
        for packet in _tone(_sound(container, path), seconds):
            container.mux(packet)
    return path


def truncate(path: Path, share: float) -> Path:
    """Cuts a file to a share of its bytes."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def concatenate(path: Path, parts: Iterable[Path]) -> Path:
    """One MPEG-TS file after the other, as recorders do it."""
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def _sound(container: av.container.OutputContainer, path: Path) -> av.AudioStream:
    """MPEG program streams hold no AAC."""
    return container.add_stream("mp2", rate=16_000) if path.suffix == ".mpg" else container.add_stream("aac", rate=8000)


def _tone(stream: av.AudioStream, seconds: float) -> Iterable[av.Packet]:
    rate, samples = stream.rate, 1152 if stream.name == "mp2" else 1024
    for i in range(int(seconds * rate / samples)):
        wave = np.sin((np.arange(samples) + i * samples) * 2800 / rate).astype(np.float32)[None] * 0.2
        whole = stream.name == "mp2"
        frame = av.AudioFrame.from_ndarray(
            (wave * 32_000).astype(np.int16) if whole else wave, format="s16" if whole else "fltp", layout="mono"
        )
        frame.sample_rate, frame.pts, frame.time_base = rate, i * samples, Fraction(1, rate)
        yield from stream.encode(frame)
    yield from stream.encode()
