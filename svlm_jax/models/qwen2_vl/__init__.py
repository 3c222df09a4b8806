"""Qwen2-VL (arXiv 2409.12191) and Qwen2.5-VL (arXiv 2502.13923)."""

from svlm_jax.models.qwen2_vl.family import FAMILIES

__all__ = ["FAMILIES"]
