"""A weight with a low-rank adapter beside it (LoRA, Hu et al. 2021), which stands where the weight alone would stand."""

import dataclasses
from typing import Any

import jax

from svlm_jax.models.quant import QuantArray


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Adapted:
    """x times it is x · weight + scale · (x · down) · up; the sum of the matrices is never formed.

    Attributes:
      weight: (in, out), of 8 bits or not. down: (in, r). up: (r, out).
    """

    weight: jax.Array | QuantArray
    down: jax.Array
    up: jax.Array
    scale: float = dataclasses.field(metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        return self.weight.shape

    def __getitem__(self, index: Any) -> "Adapted":
        """Itself, for `...`."""
        if index is not Ellipsis:
            raise TypeError(f"an adapted weight is used whole, not at {index!r}")
        return self
