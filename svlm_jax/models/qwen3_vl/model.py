"""Qwen3-VL: Qwen2.5-VL's way with another tower, and with features of several depths for the decoder's first layers."""

from flax import nnx
from jax.typing import DTypeLike

from svlm_jax.models.config import ModelConfig
from svlm_jax.models.qwen2_vl.model import Qwen
from svlm_jax.models.qwen3_vl.config import tower
from svlm_jax.models.qwen3_vl.tower import Qwen3VisionTower


class Qwen3(Qwen):
    """Dense or with experts, as its configuration says."""

    @classmethod
    def tower(cls, cfg: ModelConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> Qwen3VisionTower:
        """The tower alone, for training."""
        return Qwen3VisionTower(tower(cfg), dtype=dtype, rngs=rngs)
