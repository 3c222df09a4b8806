"""The best tokens by score, the last frames whole."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

from svlm_jax.cache.policies.base import ScoredPolicy

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int

    from svlm_jax.cache.memory_shape import MemoryShape, TokenMeta


@dataclasses.dataclass(frozen=True)
class TopK(ScoredPolicy):
    """Bucketing without buckets."""

    name: ClassVar[str] = "top-k"

    def keep(
        self,
        shape: MemoryShape,
        meta: TokenMeta,
        score: Float[Array, " vision"] | None,
        count: Int[Array, ""],
        seen: Int[Array, ""],
    ) -> Bool[Array, " vision"]:
        """The last frames, and the best of the others."""
        from svlm_jax.cache import vsb

        assert score is not None, "a policy that is scored gets scores"
        top = shape.budget - shape.short
        return vsb.compress(score, meta.place, count, seen, budget=shape.budget, short=shape.short, top=top)
