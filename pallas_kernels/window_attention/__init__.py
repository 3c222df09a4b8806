"""Attention inside contiguous segments: the windows and the temporal grids of a vision tower."""

from pallas_kernels.window_attention.api import window_attention

__all__ = ["window_attention"]
