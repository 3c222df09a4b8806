"""Pixels of one video frame: which size the model sees, and how a decoded frame gets there."""

import math
from fractions import Fraction

import av
import numpy as np
from PIL import Image

from svlm_jax.errors import SourceError
from svlm_jax.models.resize_rule import PUBLISHED, ResizeRule
from svlm_jax.video.orientation import orientation

MAX_ASPECT = 200


def smart_resize(height: int, width: int, rule: ResizeRule = PUBLISHED) -> tuple[int, int]:
    """Size (height, width) in pixels that the model sees: that of the rule, or one within its bounds with the aspect kept.

    As published (arXiv 2409.12191, section 2.1, and its code): round to multiples of the factor; when the area is out of bounds
    scale by the square root of the excess and round towards the bound. By the default rule 360p gives 364x644, 480p 476x840,
    720p and 1080p 560x1008.

    Raises SourceError when a side is not positive, or one side is more than 200 times the other.
    """
    if rule.size is not None:
        return rule.size
    if height < 1 or width < 1:
        raise SourceError(f"A frame of {width}x{height} pixels has no picture; both sides must be positive.")
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise SourceError(f"A frame of {width}x{height} pixels is too narrow; the aspect ratio must be at most {MAX_ASPECT}:1.")
    factor, most = rule.factor, rule.max_pixels
    rows, columns = (max(1, round(side / factor)) for side in (height, width))
    if rows * columns * factor**2 > most:
        scale = math.sqrt(height * width / most)
        rows, columns = (max(1, math.floor(side / scale / factor)) for side in (height, width))
    elif rows * columns * factor**2 < rule.min_pixels:
        scale = math.sqrt(rule.min_pixels / (height * width))
        rows, columns = (math.ceil(side * scale / factor) for side in (height, width))
    # A very thin frame keeps one row, which rounding down would have removed, and bounds that nearly meet may round up beyond
    # `max_pixels`, which buffers are laid out for: the longer side pays.
    limit = most // factor**2
    if rows * columns > limit:
        rows, columns = (max(1, limit // columns), columns) if rows > columns else (rows, max(1, limit // rows))
    return rows * factor, columns * factor


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
