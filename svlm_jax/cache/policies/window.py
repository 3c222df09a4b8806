"""The last seconds."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, ClassVar

from svlm_jax.cache.policies.base import MemoryPolicy

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int

    from svlm_jax.cache.memory_shape import MemoryShape, TokenMeta


@dataclasses.dataclass(frozen=True)
class Window(MemoryPolicy):
    """Frames that are no older than `window` seconds."""

    name: ClassVar[str] = "window"

    window: float = 16.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check("window", math.isfinite(self.window) and self.window > 0, "a finite number of seconds above 0")

    def tokens(self, *, grids: int, cells: int, seconds: float) -> tuple[int, int]:
        """Those of the temporal grids that the window covers."""
        return math.ceil(self.window / seconds - 1e-6) * cells, 0

    def keep(
        self,
        shape: MemoryShape,
        meta: TokenMeta,
        score: Float[Array, " vision"] | None,
        count: Int[Array, ""],
        seen: Int[Array, ""],
    ) -> Bool[Array, " vision"]:
        """The slots of the last seconds; clips that come late leave fewer than fit."""
        import jax.numpy as jnp

        kept = super().keep(shape, meta, score, count, seen)
        newest = jnp.max(jnp.where(kept, meta.second, -jnp.inf))
        return kept & (meta.second > newest - self.window + shape.seconds / 2)
