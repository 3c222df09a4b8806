"""The geometry of a clip's patches, worked out in numpy before anything runs: order, rows and columns, windows, grids.

A grid (t, h, w) counts patches. The tower takes them in *merge order*: merged cells in raster order, and inside each cell
its merge x merge patches in raster order.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from svlm_jax.errors import ConfigError
from svlm_jax.models.qwen2_vl.config import QwenVisionConfig

Grid = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where each patch is, with the patches re-ordered so that windows are contiguous, and so are temporal grids.

    Attributes:
      rows_cols: (patches, 2) row and column of each patch, in window order.
      cells: (M,) the merged cell (in raster order) at each place of the window order; None when the orders agree.
      windows: lengths in patches of the attention windows, in order; equal to `grids` without windows.
      grids: lengths in patches of the temporal grids, in order.
    """

    rows_cols: np.ndarray
    cells: np.ndarray | None
    windows: tuple[int, ...]
    grids: tuple[int, ...]


@functools.lru_cache(maxsize=64)
def layout(grid: Grid, cfg: QwenVisionConfig) -> Layout:
    """The layout of one image or video; windows are cut from the top left corner, so the last ones may be smaller.

    Raises ConfigError for a grid that does not split into merged cells.
    """
    t, h, w = grid
    merge = cfg.spatial_merge_size
    if min(grid) < 1 or h % merge or w % merge:
        raise ConfigError(f"a grid of {t} x {h} x {w} patches does not split into cells of {merge} x {merge} patches.")
    k, by, bx = (a.reshape(-1) for a in np.meshgrid(*map(np.arange, (t, h // merge, w // merge)), indexing="ij"))
    side = cfg.window_size // cfg.patch_size // merge or max(h, w)  # merged cells a side
    per_row, per_col = -(-(w // merge) // side), -(-(h // merge) // side)
    window = (k * per_col + by // side) * per_row + bx // side
    cells = np.argsort(window, kind="stable")
    iy, ix = (a.reshape(-1) for a in np.meshgrid(np.arange(merge), np.arange(merge), indexing="ij"))
    rows = (by[cells, None] * merge + iy).reshape(-1)
    cols = (bx[cells, None] * merge + ix).reshape(-1)
    lengths = np.bincount(window) * merge**2
    unmoved = bool((cells == np.arange(len(cells))).all())
    return Layout(np.stack([rows, cols], -1), None if unmoved else cells, tuple(lengths.tolist()), (h * w,) * t)


def patchify(frames: jax.Array, cfg: QwenVisionConfig) -> tuple[jax.Array, Grid]:
    """uint8 frames (B, F, 3, height, width) -> normalised float32 patches (B, patches, values) in merge order, and their grid.

    Raises ConfigError when F, height or width do not fit the patches.
    """
    batch, count, channels, height, width = frames.shape
    cell = cfg.cell
    if count % cfg.temporal_patch_size or height % cell or width % cell or channels != cfg.in_channels or not count:
        raise ConfigError(
            f"{count} frames of {channels} x {height} x {width} do not split into patches: the model needs a multiple of "
            f"{cfg.temporal_patch_size} frames with {cfg.in_channels} channels and sides that are multiples of {cell}."
        )
    t, h, w = count // cfg.temporal_patch_size, height // cfg.patch_size, width // cfg.patch_size
    merge, side = cfg.spatial_merge_size, cfg.patch_size
    mean, std = (np.asarray(a, np.float32)[:, None, None] for a in (cfg.image_mean, cfg.image_std))
    x = (frames.astype(jnp.float32) / 255.0 - mean) / std
    x = x.reshape(batch, t, cfg.temporal_patch_size, channels, h // merge, merge, side, w // merge, merge, side)
    # to (B, t, cell row, cell column, row in cell, column in cell, channel, frame, y, x)
    x = x.transpose(0, 1, 4, 7, 5, 8, 3, 2, 6, 9)
    return x.reshape(batch, t * h * w, -1), (t, h, w)
