"""Causal self-attention of whole, packed sequences, for training and long prefills."""

from pallas_kernels.flash_attention.api import LSE_NAME, OUT_NAME, flash_attention

__all__ = ["LSE_NAME", "OUT_NAME", "flash_attention"]
