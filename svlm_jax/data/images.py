"""Pictures as the tiles that LLaVA-OneVision looks at: uint8, on the host; the model normalises on the device.

The same pixels as those of the processor of `transformers` that works with Pillow: bicubic with antialiasing, on uint8.
"""

import numpy as np

from svlm_jax.errors import ConfigError
from svlm_jax.models.llava_onevision.anyres import tiling
from svlm_jax.models.llava_onevision.config import SiglipConfig
from svlm_jax.video.resize import resize


def image_tiles(rgb: np.ndarray, cfg: SiglipConfig) -> np.ndarray:
    """A picture uint8 (H, W, 3) -> (n, 3, S, S): its overview, squeezed to a square, and the tiles of its canvas.

    The picture is scaled to fit the canvas and centred on black. Raises ConfigError when it is no RGB picture.
    """
    height, width = _size(rgb)
    place, side = tiling((height, width), cfg), cfg.image_size
    fitted = resize(rgb, place.fitted)
    above, left = ((whole - part) // 2 for whole, part in zip(place.canvas, place.fitted, strict=True))
    canvas = np.zeros((*place.canvas, 3), np.uint8)
    canvas[above : above + place.fitted[0], left : left + place.fitted[1]] = fitted
    down, across = place.tiles
    tiles = canvas.reshape(down, side, across, side, 3).swapaxes(1, 2).reshape(-1, side, side, 3)
    return _channels_first(np.concatenate([resize(rgb, (side, side))[None], tiles]))


def image_tile(rgb: np.ndarray, cfg: SiglipConfig) -> np.ndarray:
    """A picture uint8 (H, W, 3), one of several -> (1, 3, S, S): centred on a square of the mean colour, then resized."""
    height, width = _size(rgb)
    longest = max(height, width)
    square = np.broadcast_to(np.asarray([int(255 * mean) for mean in cfg.image_mean], np.uint8), (longest, longest, 3)).copy()
    above, left = (longest - height) // 2, (longest - width) // 2
    square[above : above + height, left : left + width] = rgb
    return _channels_first(resize(square, (cfg.image_size,) * 2)[None])


def _size(rgb: np.ndarray) -> tuple[int, int]:
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise ConfigError(f"a picture is {rgb.dtype} of shape {rgb.shape}, expected uint8 of shape (height, width, 3).")
    return rgb.shape[0], rgb.shape[1]


def _channels_first(tiles: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(tiles.transpose(0, 3, 1, 2))
