"""The geometry of LLaVA's tiled images ("anyres": LLaVA-NeXT; arXiv 2408.03326, section 3.2), worked out before they are seen.

picture -> the best canvas of whole tiles -> scaled to fit, padded with black -> tiles
tokens:  the whole picture on one tile, then the canvas without its padding, row by row, a newline behind each
"""

import dataclasses
import functools
import math

from svlm_jax.errors import ConfigError
from svlm_jax.models.llava_onevision.config import SiglipConfig

Size = tuple[int, int]  # (height, width)


@dataclasses.dataclass(frozen=True)
class Tiling:
    """How one image becomes tiles, and their patches tokens. Sizes are (height, width).

    Attributes:
      canvas: pixels of the canvas; fitted: pixels of the picture scaled into it, centred.
      tiles: tiles along the canvas.
      crop: rows and columns of patches of the canvas that hold the picture, as slices (start, stop).
      kept: rows and columns of tokens after cropping and, for large canvases, bilinear shrinking.
    """

    canvas: Size
    fitted: Size
    tiles: Size
    crop: tuple[Size, Size]
    kept: Size

    @property
    def tile_count(self) -> int:
        """Tiles in all, the overview included."""
        return 1 + self.tiles[0] * self.tiles[1]


@functools.lru_cache(maxsize=256)
def tiling(size: Size, cfg: SiglipConfig) -> Tiling:
    """The tiling of an image of `size` pixels; ConfigError when a side is not positive."""
    if min(size) < 1:
        raise ConfigError(f"an image of {size[0]} x {size[1]} pixels has no picture: both sides must be positive.")
    canvas = best_canvas(size, cfg.grid_pinpoints)
    tiles = canvas[0] // cfg.image_size, canvas[1] // cfg.image_size
    crop = _crop(size, (tiles[0] * cfg.side, tiles[1] * cfg.side))
    rows, columns = (stop - start for start, stop in crop)
    # transformers keeps within 1.1 times the budget; beyond it shrinks to the budget.
    ratio = math.sqrt(rows * columns / (cfg.max_tiles * cfg.side**2))
    kept = (int(rows // ratio), int(columns // ratio)) if ratio > 1.1 else (rows, columns)
    return Tiling(canvas, _fit(size, canvas), tiles, crop, kept)


def image_tokens(size: Size, cfg: SiglipConfig, *, tiled: bool = True) -> int:
    """Tokens of an image of `size` pixels: tiled when it is alone, else one tile and one newline."""
    if not tiled:
        return cfg.side**2 + 1
    rows, columns = tiling(size, cfg).kept
    return cfg.side**2 + rows * (columns + 1)


def best_canvas(size: Size, canvases: tuple[Size, ...]) -> Size:
    """The canvas that keeps most of the picture's pixels, and of those the one that wastes the fewest; the first of equals."""
    height, width = size

    def worth(canvas: Size) -> tuple[int, int]:
        scale = min(canvas[1] / width, canvas[0] / height)
        effective = min(int(width * scale) * int(height * scale), width * height)
        return effective, effective - canvas[0] * canvas[1]

    return max(canvases, key=worth)


def _fit(size: Size, canvas: Size) -> Size:
    """The largest size of the same shape that the canvas holds."""
    down, across = canvas[0] / size[0], canvas[1] / size[1]
    if across < down:
        return min(math.ceil(size[0] * across), canvas[0]), canvas[1]
    return canvas[0], min(math.ceil(size[1] * down), canvas[1])


def _crop(size: Size, patches: Size) -> tuple[Size, Size]:
    """The rows and columns of the canvas's patches without the padding, which is cut alike on both sides."""
    (height, width), (rows, columns) = size, patches
    if width / height > columns / rows:
        pad = (rows - int(round(height * (columns / width), 7))) // 2
        return (pad, rows - pad), (0, columns)
    pad = (columns - int(round(width * (rows / height), 7))) // 2
    return (0, rows), (pad, columns - pad)
