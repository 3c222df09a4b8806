"""Root mean square normalisation of a single row, which XLA for GPUs makes two kernels of."""

from pallas_kernels.rms_norm.api import rms_norm

__all__ = ["rms_norm"]
