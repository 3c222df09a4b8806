"""Qwen3-VL (arXiv 2511.21631), dense and with mixtures of experts."""

from svlm_jax.models.qwen3_vl.family import FAMILIES

__all__ = ["FAMILIES"]
