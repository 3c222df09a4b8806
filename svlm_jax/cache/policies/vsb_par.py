"""Vision Sink Bucketing, and questions that read only the pages that matter for them (`cache.pages`)."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

from svlm_jax.cache.policies.vsb import Bucketing

if TYPE_CHECKING:
    import jax
    from jaxtyping import Array, Bool, Float, Int


@dataclasses.dataclass(frozen=True)
class BucketingWithPages(Bucketing):
    """LiveVLM.

    Attributes:
      page: keys a page. retrieve: share of the pages that a question reads.
      page_positions: choose pages by rotated keys and queries (the paper's ablation, which is worse).
    """

    name: ClassVar[str] = "vsb+par"

    page: int = 16  # type: ignore[misc]  # options here, constants of policies without pages
    retrieve: float = 0.4
    page_positions: bool = False  # type: ignore[misc]

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check("page", self.page >= 1, "1 or more")
        self.check("retrieve", 0 < self.retrieve <= 1, "a share above 0, at most 1")

    def select(
        self, query: Float[Array, "B T N H"], asked: Bool[Array, "B T"], means: jax.Array, count: Int[Array, "B"], short: int
    ) -> tuple[Int[Array, "B chosen"], Bool[Array, "B chosen"]]:
        """The best pages of the long-term memory, then the short-term memory."""
        import jax.numpy as jnp

        from svlm_jax.cache import pages

        long = jnp.maximum(count - short, 0)
        chosen = pages.choose(pages.page_scores(query, asked, means), long, page=self.page, share=self.retrieve)
        slot = pages.slots_of(chosen, page=self.page)
        newest = long[:, None] + jnp.arange(short)
        live = jnp.concatenate([slot < long[:, None], newest < count[:, None]], axis=1)
        return jnp.concatenate([slot, newest], axis=1), live
