"""LLaVA-OneVision (arXiv 2408.03326)."""

from svlm_jax.models.llava_onevision.family import FAMILIES

__all__ = ["FAMILIES"]
