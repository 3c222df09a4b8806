"""How much the last queries look at each slot of a cache."""

from pallas_kernels.pooled_scores.api import pooled_scores

__all__ = ["pooled_scores"]
