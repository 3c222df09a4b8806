"""What a memory's slots are: how many of which kind, and what one of them holds."""

import dataclasses

import jax
from jaxtyping import Array, Bool, Float, Int


@dataclasses.dataclass(frozen=True)
class MemoryShape:
    """Everything about a memory that decides array shapes, and what positions need to know of the pictures.

    Attributes:
      prefix: tokens before the video.
      grids: temporal grids of a clip; rows, columns: merged cells of a picture.
      seconds: stream time between two grids. step: positions between two grids; 0 = tokens have 1-D positions.
      budget: tokens kept. short: those of them that are never compressed.
      before, after: tokens around the cells of each temporal grid, at most: its time stamp and marks; 0 for families whose
        video is one block.
    """

    prefix: int
    grids: int
    rows: int
    columns: int
    seconds: float
    step: float
    budget: int
    short: int
    before: int = 0
    after: int = 0

    @property
    def cells(self) -> int:
        """Tokens of a temporal grid, at most."""
        return self.before + self.rows * self.columns + self.after

    @property
    def stamped(self) -> bool:
        """Whether each temporal grid is a block of its own behind a time stamp."""
        return self.before > 0

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
class BlockMeta:
    """What tokens need to know of the block that their temporal grid is, where grids have time stamps.

    Attributes:
      begin: position of the block's first token, from that behind the prefix on. span: positions that it takes.
      depth: of the token behind `begin`; a cell's row and column come on top of it. text: whether it is of a stamp or a mark.
    """

    begin: Int[Array, "B vision"]
    span: Int[Array, "B vision"]
    depth: Int[Array, "B vision"]
    text: Bool[Array, "B vision"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TokenMeta:
    """What the vision slots of one layer hold (with a leading axis of layers in `MemoryState`)."""

    place: Int[Array, "B vision"]  # of the token among all vision tokens of the stream
    grid: Int[Array, "B vision"]  # temporal grid of the stream
    row: Int[Array, "B vision"]
    column: Int[Array, "B vision"]
    second: Float[Array, "B vision"]  # stream time of its frames
    block: BlockMeta | None = None
