"""Attention of one decoded token a stream, which is written into the cache on the way."""

from pallas_kernels.decode_attention.api import decode_attention

__all__ = ["decode_attention"]
