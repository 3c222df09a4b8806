"""How large the frames of a video reach a model: what a family says about it, and `video.resize` applies. No jax in here."""

import dataclasses
from typing import Self

from svlm_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class ResizeRule:
    """The published rule of Qwen2-VL and its successors (arXiv 2409.12191, section 2.1), with a family's numbers.

    Attributes:
      factor: pixels along the side of a token: sides are multiples of it.
      grid_frames: frames that share one temporal grid: a chunk has a multiple of them.
      min_pixels, max_pixels: of a frame.
      total_pixels: of a clip, in whose frames each temporal grid counts once; long clips get smaller frames.
      size: (height, width) of every frame instead, whatever the video has.
    Raises ConfigError for bounds that cannot be met, and for a size that does not split into tokens.
    """

    factor: int
    grid_frames: int
    min_pixels: int
    max_pixels: int
    total_pixels: int
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if not self.factor**2 <= self.max_pixels or self.min_pixels > self.max_pixels:
            raise ConfigError(
                f"min_pixels={self.min_pixels} and max_pixels={self.max_pixels} cannot be met; expected min_pixels <= "
                f"max_pixels and room for one token of {self.factor}x{self.factor}."
            )
        if self.size is not None and (min(self.size) < self.factor or any(side % self.factor for side in self.size)):
            height, width = self.size
            raise ConfigError(f"size={height}x{width} must be positive multiples of {self.factor}.")

    @classmethod
    def of_tokens(cls, factor: int, grid_frames: int, *, least: int = 100, most: int = 768, total: int = 115_200) -> Self:
        """The rule for tokens of `factor` x `factor` pixels: `least` to `most` of them a frame, `total` a clip."""
        area = factor**2
        return cls(factor, grid_frames, least * area, most * area, total * area)

    @classmethod
    def fixed(cls, side: int) -> Self:
        """Every frame is a square of that side, and a temporal grid by itself."""
        return cls(side, 1, side**2, side**2, side**2, (side, side))

    def at_most(self, pixels: int | None) -> Self:
        """With another bound for a frame (None: the same). Who wants fewer pixels than the least gets them."""
        if pixels is None or self.size is not None:
            return self
        return dataclasses.replace(self, min_pixels=min(self.min_pixels, pixels), max_pixels=pixels)

    def for_clip(self, frames: int) -> Self:
        """The rule for each frame of a clip of `frames` frames, of which all together get `total_pixels`.

        At most max(min(max_pixels, total / grids), 1.05 * min_pixels), as published; for clips below 300 frames `max_pixels`.
        """
        if self.size is not None:
            return self
        share = self.total_pixels / (frames + -frames % self.grid_frames) * self.grid_frames
        return self.at_most(int(max(min(self.max_pixels, share), 1.05 * self.min_pixels)))


# Of StreamingVLM, on Qwen2.5-VL: 2 x 2 patches of 14 pixels a token. What a source does that no model has opened.
PUBLISHED = ResizeRule.of_tokens(28, 2)
