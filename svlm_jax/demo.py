"""What `svlm demo` streams: a short rendered clip, and a small checkpoint with random weights."""

import math
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from PIL import Image, ImageDraw

from svlm_jax.checkpoint.random import write_random_checkpoint

SIZE = (448, 252)  # width, height in pixels
FPS = 24


def frame(time: float, seconds: float, seed: int = 0) -> Image.Image:
    """The picture at `time` seconds: a ball that bounces, a square that crosses the sky, and a bar that shows the time."""
    width, height = SIZE
    dusk = time / seconds
    picture = Image.new("RGB", SIZE, (int(120 - 90 * dusk), int(180 - 120 * dusk), int(235 - 110 * dusk)))
    draw = ImageDraw.Draw(picture)
    ground = int(height * 0.8)
    draw.rectangle((0, ground, width, height), fill=(60, 120, 50))
    phase = 1.3 * time + seed
    x, radius = (width - 60) * (0.5 + 0.5 * math.sin(phase)) + 30, 18
    y = ground - radius - abs(math.sin(2.1 * phase)) * height * 0.5
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(220, 60, 40))
    left = (0.15 * time * width) % (width + 40) - 40
    draw.rectangle((left, 20, left + 36, 56), fill=(245, 225, 120))
    draw.rectangle((0, height - 8, width * dusk, height), fill=(255, 255, 255))
    return picture


def render_clip(path: Path, seconds: int, seed: int = 0) -> None:
    """Write `seconds` of the little scene as an H.264 (or MPEG-4) video of 24 frames a second."""
    with av.open(str(path), "w") as container:
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        stream = cast(av.VideoStream, container.add_stream(codec, rate=FPS))
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        for index in range(seconds * FPS):
            picture = np.asarray(frame(index / FPS, seconds, seed))
            image = av.VideoFrame.from_ndarray(picture, format="rgb24")
            image.pts, image.time_base = index, Fraction(1, FPS)
            container.mux(stream.encode(image))
        container.mux(stream.encode())


def prepare(folder: Path, seconds: int, seed: int = 0) -> tuple[Path, Path]:
    """Make the clip and the checkpoint in `folder`, each only if it is not there yet; returns the paths of both."""
    folder.mkdir(parents=True, exist_ok=True)
    clip, model = folder / f"clip-{seconds}s-{seed}.mp4", folder / f"random-model-{seed}"
    if not clip.exists():
        unfinished = folder / "unfinished.mp4"
        render_clip(unfinished, seconds, seed)
        unfinished.replace(clip)
    if not model.exists():
        write_random_checkpoint(model, family="qwen2_5_vl", size="tiny", seed=seed)
    return clip, model
