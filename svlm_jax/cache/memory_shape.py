"""What a memory's slots are: how many of which kind, and what one of them holds."""

import dataclasses

import jax
from jaxtyping import Array, Float, Int


@dataclasses.dataclass(frozen=True)
class MemoryShape:
    """Everything about a memory that decides array shapes, and what positions need to know of the pictures.

    Attributes:
      prefix: tokens before the video.
      grids: temporal grids of a clip; rows, columns: merged cells of a picture.
      seconds: stream time between two grids. step: positions between two grids; 0 = tokens have 1-D positions.
      budget: tokens kept. short: those of them that are never compressed.
    """

    prefix: int
    grids: int
    rows: int
    columns: int
    seconds: float
    step: float
    budget: int
    short: int

    @property
    def cells(self) -> int:
        """Tokens of a temporal grid."""
        return self.rows * self.columns

    @property
    def clip(self) -> int:
        return self.grids * self.cells

    @property
    def vision(self) -> int:
        """Slots after the prefix; all slots together are a multiple of 8, which GPU kernels need."""
        return self.budget + self.clip + -(self.prefix + self.budget + self.clip) % 8

    @property
    def slots(self) -> int:
        return self.prefix + self.vision

    @property
    def held(self) -> int:
        """Vision slots that can be live between clips; again a multiple of 8 with the prefix, if there is room for that."""
        return min(self.budget + -(self.prefix + self.budget) % 8, self.vision)

    def pages(self, page: int) -> int:
        """Pages of the long-term memory."""
        return -(-(self.budget - self.short) // page)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TokenMeta:
    """What the vision slots of one layer hold (with a leading axis of layers in `MemoryState`)."""

    place: Int[Array, "B vision"]  # of the token among all vision tokens of the stream
    grid: Int[Array, "B vision"]  # temporal grid of the stream
    row: Int[Array, "B vision"]
    column: Int[Array, "B vision"]
    second: Float[Array, "B vision"]  # stream time of its frames
