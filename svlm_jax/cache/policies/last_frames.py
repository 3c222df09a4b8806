"""Nothing but the last frames, read afresh for each question: the control that memories must beat."""

import dataclasses
from typing import ClassVar

from svlm_jax.cache.policies.base import MemoryPolicy


@dataclasses.dataclass(frozen=True)
class LastFrames(MemoryPolicy):
    """The clip is `frames` long, and there is no other."""

    name: ClassVar[str] = "last-frames"
    afresh: ClassVar[bool] = True

    clip_frames: int = dataclasses.field(init=False, default=4)
    frames: int = 4

    def __post_init__(self) -> None:
        self.check("frames", self.frames >= 1, "1 or more")
        object.__setattr__(self, "clip_frames", self.frames)
        super().__post_init__()

    def tokens(self, *, grids: int, cells: int, seconds: float) -> tuple[int, int]:
        """Those of the one clip."""
        return grids * cells, 0
