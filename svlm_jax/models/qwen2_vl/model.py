"""Qwen2-VL and Qwen2.5-VL: a vision tower that merges patches, and a decoder with positions of three axes."""

from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, UInt8

from pallas_kernels.dispatch import Implementation
from svlm_jax.models.config import ModelConfig
from svlm_jax.models.decoder import Decoder
from svlm_jax.models.qwen2_vl.config import tower
from svlm_jax.models.qwen2_vl.patches import Grid
from svlm_jax.models.qwen2_vl.tower import VisionTower
from svlm_jax.models.vlm import VLM, VisionFeatures


class Qwen(VLM):
    """Qwen2-VL and Qwen2.5-VL."""

    def __init__(self, cfg: ModelConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.cfg = cfg
        self.visual = self.tower(cfg, dtype=dtype, rngs=rngs)
        self.decoder = Decoder(cfg.text, dtype=dtype, rngs=rngs)

    @classmethod
    def tower(cls, cfg: ModelConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> VisionTower:
        """The tower alone, for training."""
        return VisionTower(tower(cfg), dtype=dtype, rngs=rngs)

    def encode_video(
        self, frames: UInt8[Array, "B F 3 height width"], *, implementation: Implementation = "auto"
    ) -> VisionFeatures:
        """One clip a stream -> its features (B, M, D), M = t·h·w merged cells in raster order.

        Pixels are normalised and cut into patches on the device. F is a multiple of the temporal patch, height and width
        are multiples of the merged cell, else ConfigError.
        """
        return self.visual.encode(frames, implementation)

    def vision(
        self, patches: Float[Array, "patches values"], grid: Grid, *, implementation: Implementation = "auto"
    ) -> VisionFeatures:
        """Normalised patches of one image or video, in merge order, grid = (t, h, w) static -> features in raster order."""
        return self.visual(patches, grid, implementation)
