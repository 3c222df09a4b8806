"""Attention of new tokens over a cache whose slots are in no order."""

from pallas_kernels.cache_attention.api import cache_attention, merge

__all__ = ["cache_attention", "merge"]
