"""Qwen2-VL and Qwen2.5-VL: a vision tower that merges patches, and a decoder with positions of three axes."""

from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, UInt8

from pallas_kernels.dispatch import Implementation
from svlm_jax.models.config import ModelConfig
from svlm_jax.models.decoder import Decoder
from svlm_jax.models.qwen2_vl.patches import Grid, patchify
from svlm_jax.models.qwen2_vl.tower import VisionTower
from svlm_jax.models.vlm import VLM


class Qwen(VLM):
    """Qwen2-VL and Qwen2.5-VL."""

    def __init__(self, cfg: ModelConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.cfg = cfg
        self.visual = VisionTower(cfg.qwen_vision, dtype=dtype, rngs=rngs)
        self.decoder = Decoder(cfg.text, dtype=dtype, rngs=rngs)

    def encode_video(
        self, frames: UInt8[Array, "B F 3 height width"], *, implementation: Implementation = "auto"
    ) -> Float[Array, "B M D"]:
        """One clip a stream -> its embeddings, M = t·h·w merged cells in raster order.

        Pixels are normalised and cut into patches on the device. F is a multiple of the temporal patch, height and width
        are multiples of the merged cell, else ConfigError.
        """
        patches, (t, h, w) = patchify(frames, self.cfg.qwen_vision)
        batch = len(frames)
        # Temporal grids never see each other, so streams are nothing but more of them.
        merged = self.visual(patches.reshape(-1, patches.shape[-1]), (batch * t, h, w), implementation)
        return merged.reshape(batch, -1, merged.shape[-1])

    def vision(
        self, patches: Float[Array, "P values"], grid: Grid, *, implementation: Implementation = "auto"
    ) -> Float[Array, "M D"]:
        """Normalised patches of one image or video, in merge order, grid = (t, h, w) static -> embeddings in raster order."""
        return self.visual(patches, grid, implementation)
