"""The vision tower of Qwen3-VL: learned positions interpolated to any grid, 2-D rotary ones, and mergers at several depths."""

import functools

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from pallas_kernels.dispatch import Implementation
from svlm_jax.models import rope
from svlm_jax.models.layers import MLP, Embedding, LayerNorm, Linear
from svlm_jax.models.qwen2_vl.patches import Grid, layout
from svlm_jax.models.qwen2_vl.tower import EPS, Block, Merger, VisionTower, exact_gelu
from svlm_jax.models.qwen3_vl.config import Qwen3VisionConfig
from svlm_jax.models.vlm import VisionFeatures


class DeepstackMerger(nnx.Module):
    """The merge x merge patches of a cell, side by side, normalised together -> one embedding of the decoder's width."""

    def __init__(self, cfg: Qwen3VisionConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        wide = cfg.hidden_size * cfg.spatial_merge_size**2
        self.norm = LayerNorm(wide, eps=EPS, dtype=dtype)
        self.mlp = MLP(wide, wide, cfg.out_hidden_size, activation=exact_gelu, dtype=dtype, rngs=rngs)
        self.wide = wide

    def __call__(self, x: Float[Array, "patches E"]) -> Float[Array, "M D"]:
        return self.mlp(self.norm(x.reshape(-1, self.wide)))


class Qwen3VisionTower(VisionTower):
    """See the top of this file."""

    def __init__(self, cfg: Qwen3VisionConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.cfg: Qwen3VisionConfig = cfg
        self.patch_embed = Linear(cfg.patch_values, cfg.hidden_size, bias=True, dtype=dtype, rngs=rngs)
        self.position = Embedding(cfg.num_position_embeddings, cfg.hidden_size, dtype=dtype, rngs=rngs)
        self.blocks = nnx.List([Block(cfg, dtype=dtype, rngs=rngs) for _ in range(cfg.depth)])
        self.merger = Merger(cfg, dtype=dtype, rngs=rngs)
        depths = cfg.deepstack_visual_indexes
        self.deepstack = nnx.List([DeepstackMerger(cfg, dtype=dtype, rngs=rngs) for _ in depths])

    def __call__(
        self, patches: Float[Array, "patches values"], grid: Grid, implementation: Implementation = "auto"
    ) -> VisionFeatures:
        """Patches in merge order -> features (M, D) in raster order of the merged cells."""
        cfg, place = self.cfg, layout(grid, self.cfg)
        x = self.patch_embed(patches.astype(self.patch_embed.weight[...].dtype))
        x = x + self._positions(grid).astype(x.dtype)
        rope_tables = rope.cos_sin(rope.vision_angles(place.rows_cols, cfg.head_dim)[:, None])
        stacked = []
        for i, block in enumerate(self.blocks):
            x = block(x, rope_tables, place.grids, implementation)
            if i in cfg.deepstack_visual_indexes:
                stacked.append(self.deepstack[cfg.deepstack_visual_indexes.index(i)](x))
        return VisionFeatures(self.merger(x), tuple(stacked))

    def _positions(self, grid: Grid) -> Float[Array, "patches E"]:
        """The learned positions of a grid's patches in merge order, float32; the same for every temporal grid."""
        index, weight = interpolation((1, *grid[1:]), self.cfg)
        picture = (self.position.weight[...][index].astype(jnp.float32) * weight[:, :, None]).sum(1)
        return jnp.tile(picture, (grid[0], 1))


@functools.lru_cache(maxsize=64)
def interpolation(grid: Grid, cfg: Qwen3VisionConfig) -> tuple[np.ndarray, np.ndarray]:
    """Which four learned positions each patch mixes (patches, 4), and their shares, float32: bilinear, corners on corners."""
    side = cfg.position_side
    rows, columns = layout(grid, cfg).rows_cols.T
    axes = [_neighbours(rows, grid[1], side), _neighbours(columns, grid[2], side)]
    (row, row_share), (column, column_share) = axes
    index = row[:, :, None] * side + column[:, None, :]
    share = row_share[:, :, None] * column_share[:, None, :]
    return index.reshape(-1, 4), share.reshape(-1, 4)


def _neighbours(places: np.ndarray, count: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """The two of `side` positions next to each of `places` on an axis of `count` patches, and their shares."""
    at = places.astype(np.float32) * np.float32(side - 1) / np.float32(max(count - 1, 1))
    below = np.floor(at).astype(np.int32)
    above = at - below
    return np.stack([below, np.minimum(below + 1, side - 1)], 1), np.stack([1 - above, above], 1).astype(np.float32)
