"""Pixels of one video frame: which size the model sees, and how a decoded frame gets there."""

import math
from fractions import Fraction

import av
import numpy as np
from PIL import Image

from svlm_jax.errors import ConfigError, SourceError
from svlm_jax.video.orientation import orientation

FACTOR = 28  # a merged patch: 2 x 2 patches of 14 pixels
MIN_PIXELS = 100 * FACTOR * FACTOR
MAX_PIXELS = 768 * FACTOR * FACTOR
TOTAL_PIXELS = 115_200 * FACTOR * FACTOR
TEMPORAL_PATCH = 2  # frames that share one temporal grid
MAX_ASPECT = 200


def smart_resize(
    height: int, width: int, *, factor: int = FACTOR, min_pixels: int = MIN_PIXELS, max_pixels: int = MAX_PIXELS
) -> tuple[int, int]:
    """Size (height, width) in pixels that the model sees: multiples of `factor`, area within the bounds, aspect kept.

    The published rule of Qwen2-VL (arXiv 2409.12191, section 2.1, and its code): round to the grid; when the area is out of
    bounds scale by the square root of the excess and round towards the bound. 360p gives 364x644, 480p 476x840, 720p and
    1080p 560x1008.

    Raises:
      SourceError: a side is not positive, or one side is more than 200 times the other.
      ConfigError: the bounds cannot be met.
    """
    if height < 1 or width < 1:
        raise SourceError(f"A frame of {width}x{height} pixels has no picture; both sides must be positive.")
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise SourceError(f"A frame of {width}x{height} pixels is too narrow; the aspect ratio must be at most {MAX_ASPECT}:1.")
    if not factor * factor <= max_pixels or min_pixels > max_pixels:
        raise ConfigError(
            f"min_pixels={min_pixels} and max_pixels={max_pixels} cannot be met; expected min_pixels <= max_pixels and room for"
            f" one patch of {factor}x{factor}."
        )
    rows, columns = (max(1, round(side / factor)) for side in (height, width))
    if rows * columns * factor**2 > max_pixels:
        scale = math.sqrt(height * width / max_pixels)
        rows, columns = (max(1, math.floor(side / scale / factor)) for side in (height, width))
    elif rows * columns * factor**2 < min_pixels:
        scale = math.sqrt(min_pixels / (height * width))
        rows, columns = (math.ceil(side * scale / factor) for side in (height, width))
    # A very thin frame keeps one row, which rounding down would have removed, and bounds that nearly meet may round up beyond
    # `max_pixels`, which buffers are laid out for: the longer side pays.
    limit = max_pixels // factor**2
    if rows * columns > limit:
        rows, columns = (max(1, limit // columns), columns) if rows > columns else (rows, max(1, limit // rows))
    return rows * factor, columns * factor


def frame_pixel_cap(
    frames: int, *, min_pixels: int = MIN_PIXELS, max_pixels: int = MAX_PIXELS, total_pixels: int = TOTAL_PIXELS
) -> int:
    """Pixels one frame of a clip of `frames` frames may have, from the published total budget of a clip.

    max(min(max_pixels, total / frames * 2), 1.05 * min_pixels); for clips below 300 frames that is `max_pixels`.
    """
    return int(max(min(max_pixels, total_pixels / frames * TEMPORAL_PATCH), 1.05 * min_pixels))


def display_size(frame: av.VideoFrame, aspect: Fraction | None = None) -> tuple[int, int]:
    """(height, width) as a player shows the frame: stretched by the pixels' aspect ratio, turned by its display matrix."""
    height, width = frame.height, frame.width
    if aspect and aspect > 0:
        width = max(1, round(width * aspect))
    return orientation(frame).size(height, width)


def model_pixels(frame: av.VideoFrame, size: tuple[int, int]) -> np.ndarray:
    """Upright RGB picture of a decoded frame: uint8 (3, height, width) of `size` (height, width).

    Any pixel format goes through RGB at full size, then bicubic with antialiasing on uint8, as the published reader does;
    the model normalises on the device.
    """
    rgb = frame.to_ndarray(format="rgb24")
    way = orientation(frame)
    # Bicubic is separable and symmetric, so turning the small picture equals turning the large one.
    return np.ascontiguousarray(way.apply(resize(rgb, way.size(*size))).transpose(2, 0, 1))


def array_pixels(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 (3, height, width) of `size` from an RGB array uint8 (H, W, 3)."""
    return np.ascontiguousarray(resize(frame, size).transpose(2, 0, 1))


def resize(rgb: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bicubic resize with antialiasing: uint8 (H, W, 3) to uint8 (height, width, 3); unchanged when the size fits."""
    if rgb.shape[:2] == tuple(size):
        return rgb
    height, width = size
    return np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.BICUBIC))
