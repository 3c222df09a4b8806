"""What a memory policy is: a frozen object whose fields are its options, and which decides what is kept and what is read.

The command line lists policies and their options, and must not wait for jax: a policy's file imports it where it computes.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from svlm_jax.errors import ConfigError

if TYPE_CHECKING:
    import jax
    from jaxtyping import Array, Bool, Float, Int

    from svlm_jax.cache.memory_shape import MemoryShape, TokenMeta

Positions = Literal["contiguous", "original"]


@dataclasses.dataclass(frozen=True)
class MemoryPolicy(abc.ABC):
    """What every policy can be asked. Its `name` is what users call it.

    Attributes:
      clip_frames: frames that are read, and compressed, at a time.
      positions: "contiguous" closes the gaps that eviction left; "original" keeps them.
      similar: frames whose cosine with the last frame kept is above this are not remembered; None = all are.
    """

    name: ClassVar[str]
    scored: ClassVar[bool] = False  # whether a clip's attention decides what is kept
    forgets: ClassVar[bool] = True  # if not, the stream must end when the budget does
    afresh: ClassVar[bool] = False  # whether frames are read for each question anew, and never before
    queries: ClassVar[int] = 0  # last vision tokens of a clip whose attention gives the scores
    page: ClassVar[int] = 0  # keys a page; 0: a question reads everything
    page_positions: ClassVar[bool] = False  # whether pages are chosen by rotated keys and queries

    clip_frames: int = 32
    positions: Positions = "contiguous"
    similar: float | None = None

    def __post_init__(self) -> None:
        self.check("clip_frames", self.clip_frames >= 1, "1 or more")
        self.one_of("positions", Positions)
        self.check("similar", self.similar is None or -1 <= self.similar <= 1, "a cosine from -1 to 1, or none")

    def check(self, field: str, fine: bool, expected: str) -> None:
        """ConfigError that names the field unless its value is fine."""
        if not fine:
            raise ConfigError(f"memory {field}={getattr(self, field)}: expected {expected}")

    def one_of(self, field: str, allowed: Any) -> None:
        """ConfigError that names the field unless its value is one of a Literal's."""
        if getattr(self, field) not in get_args(allowed):
            raise ConfigError(f"memory {field}={getattr(self, field)!r}: expected one of {', '.join(get_args(allowed))}")

    @abc.abstractmethod
    def tokens(self, *, grids: int, cells: int, seconds: float) -> tuple[int, int]:
        """Vision tokens that each layer keeps in all, and the newest of them that are never compressed.

        A clip has `grids` temporal grids of `cells` tokens, `seconds` apart. Raises ConfigError for a budget that cannot hold
        what must be kept.
        """

    def keep(
        self,
        shape: MemoryShape,
        meta: TokenMeta,
        score: Float[Array, " vision"] | None,
        count: Int[Array, ""],
        seen: Int[Array, ""],
    ) -> Bool[Array, " vision"]:
        """Which of a layer's first `count` slots stay, of one stream, when a clip has come: the newest, unless it says more.

        score: of each slot, for policies that are `scored`. seen: vision tokens of the stream so far.
        """
        from svlm_jax.cache.vsb import recent

        return recent(count, shape.vision, shape.budget)

    def select(
        self, query: Float[Array, "B T N H"], asked: Bool[Array, "B T"], means: jax.Array, count: Int[Array, "B"], short: int
    ) -> tuple[Int[Array, "B chosen"], Bool[Array, "B chosen"]]:
        """The vision slots that a question reads, in order, and which of them are live, for policies with pages.

        query: rotated if `page_positions`. asked: the question's tokens. means: mean keys of the pages. count: live slots.
        """
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class BudgetPolicy(MemoryPolicy):
    """A policy that keeps a fixed number of tokens.

    Attributes:
      budget: vision tokens kept in each layer, the short-term memory included.
    """

    budget: int = 12_000

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check("budget", self.budget >= 1, "1 or more")

    def tokens(self, *, grids: int, cells: int, seconds: float) -> tuple[int, int]:
        """The budget, which must hold a clip."""
        if self.budget < grids * cells:
            raise ConfigError(
                f"memory budget={self.budget}: expected at least the {grids * cells} tokens of a clip of {self.clip_frames} "
                "frames"
            )
        return self.budget, 0


@dataclasses.dataclass(frozen=True)
class ScoredPolicy(BudgetPolicy):
    """A policy that goes by the attention that a clip's last tokens pay to what is kept.

    Attributes:
      recent_frames: the short-term memory, never compressed and always read.
      queries: r, the last vision tokens of a clip, whose attention gives the scores.
    """

    scored: ClassVar[bool] = True

    recent_frames: int = 2
    queries: int = 64  # type: ignore[misc]  # an option here, a constant of policies without scores

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check("recent_frames", self.recent_frames >= 0, "0 or more")
        self.check("queries", self.queries >= 1, "1 or more")

    def tokens(self, *, grids: int, cells: int, seconds: float) -> tuple[int, int]:
        """The budget, and the tokens of the last frames."""
        budget, _ = super().tokens(grids=grids, cells=cells, seconds=seconds)
        short = math.ceil(self.recent_frames / (self.clip_frames / grids)) * cells
        if budget <= short:
            raise ConfigError(
                f"memory budget={budget}: expected more than the {short} tokens of recent_frames={self.recent_frames}"
            )
        return budget, short
