"""Vision Sink Bucketing (LiveVLM, arXiv 2505.15269, section 3.2): what is kept covers the whole stream, best tokens first."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar, Literal

from svlm_jax.cache.policies.base import ScoredPolicy

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int

    from svlm_jax.cache.memory_shape import MemoryShape, TokenMeta

Buckets = Literal["stream", "cache"]


@dataclasses.dataclass(frozen=True)
class Bucketing(ScoredPolicy):
    """See `cache.vsb`. Defaults are the paper's where it publishes them, else those that `docs/memory.md` argues for.

    Attributes:
      scatter: share of the long-term budget that buckets fill; the rest, R tokens, survives by score alone.
      capacity: tokens a bucket. buckets: spans of the "stream", or of what is in the "cache".
    """

    name: ClassVar[str] = "vsb"

    scatter: float = 0.5
    capacity: int = 1
    buckets: Buckets = "stream"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check("scatter", 0 <= self.scatter <= 1, "a share from 0 to 1")
        self.check("capacity", self.capacity >= 1, "1 or more")
        self.one_of("buckets", Buckets)

    def keep(
        self,
        shape: MemoryShape,
        meta: TokenMeta,
        score: Float[Array, " vision"] | None,
        count: Int[Array, ""],
        seen: Int[Array, ""],
    ) -> Bool[Array, " vision"]:
        """The last frames, the best of each bucket, and the best of all."""
        from svlm_jax.cache import vsb

        assert score is not None, "a policy that is scored gets scores"
        return vsb.compress(
            score,
            meta.place,
            count,
            seen,
            budget=shape.budget,
            short=shape.short,
            top=round((1 - self.scatter) * (shape.budget - shape.short)),
            capacity=self.capacity,
            by_stream=self.buckets == "stream",
        )
