"""Three-dimensional positions of whole sequences of text, images and videos, as the models were trained with them.

Streams derive their positions from the cache (`svlm_jax.cache`); these are for one-shot forward passes.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, Literal

import numpy as np

from svlm_jax.cache.positions import inside_block, raster
from svlm_jax.errors import ConfigError
from svlm_jax.models import registry
from svlm_jax.models.config import ModelConfig
from svlm_jax.models.qwen2_vl.patches import Grid


def rope_positions(
    tokens: Sequence[int] | np.ndarray,
    cfg: ModelConfig,
    *,
    image_grids: Sequence[Grid] = (),
    video_grids: Sequence[Grid] = (),
    second_per_grid: Sequence[float] | None = None,
    after_vision: Literal["max", "spatial"] = "max",
) -> np.ndarray:
    """The (t, h, w) position of every token of one sequence, float32 (3, T).

    Text moves all axes by 1. A block of t x h x w merged cells that starts at position p has its cells at (p + τ, p + row,
    p + column), τ = floor(grid · tokens_per_second · second_per_grid) for the videos of models that count time, else the
    index of the temporal grid. Families that number visual tokens like words
    (LLaVA-OneVision) neither need nor look at grids.

    Args:
      tokens: ids, with every image or video expanded to its pad tokens.
      image_grids, video_grids: (t, h, w) in patches, in order of appearance.
      second_per_grid: seconds between the temporal grids of each video; 1 if not given. Not for families whose prompts tell
        time in text.
      after_vision: text goes on behind the largest position of the block ("max", how the models were trained), or behind
        its larger side ("spatial", what transformers 5 computes; the two differ for long, small videos).
    """
    ids = np.asarray(tokens)
    if registry.record(cfg).positions == "words":
        return np.broadcast_to(np.arange(len(ids), dtype=np.float32), (3, len(ids)))
    tower: Any = cfg.vision
    if registry.record(cfg).positions == "frames":
        video_grids = [(1, h, w) for t, h, w in video_grids for _ in range(t)]
    seconds = [1.0] * len(video_grids) if second_per_grid is None else list(second_per_grid)
    if len(seconds) != len(video_grids):
        raise ConfigError(f"second_per_grid has {len(seconds)} values, expected one for each of {len(video_grids)} videos.")
    images, videos = iter(image_grids), iter(zip(video_grids, seconds, strict=True))
    parts: list[np.ndarray] = []
    start = 0
    for kind, length in _runs(ids, cfg):
        if kind == "text":
            parts.append(np.broadcast_to(start + np.arange(length), (3, length)))
            start += length
            continue
        left = length
        while left:  # blocks without a separator form one run of pads
            grid, step = _next_block(kind, images, videos, tower)
            block = _block(grid, step, tower.spatial_merge_size)
            left -= block.shape[1]
            if left < 0:
                raise ConfigError(f"{length} {kind} tokens in a row do not hold whole blocks: one of grid {grid} is cut.")
            parts.append(start + block)
            start += int((block.max() if after_vision == "max" else block[1:].max()) + 1)
    if next(images, None) is not None or next(videos, None) is not None:
        raise ConfigError("more grids are given than the tokens hold images and videos.")
    return np.concatenate([np.zeros((3, 0)), *parts], axis=1).astype(np.float32)


def _runs(ids: np.ndarray, cfg: ModelConfig) -> Iterator[tuple[str, int]]:
    kinds = {cfg.image_token_id: "image", cfg.video_token_id: "video"}
    for kind, run in groupby(ids.tolist(), key=lambda token: kinds.get(token, "text")):
        yield kind, sum(1 for _ in run)


def _next_block(kind: str, images: Iterator[Grid], videos: Iterator[tuple[Grid, float]], tower: Any) -> tuple[Grid, float]:
    """The next grid of that kind, and how far one temporal grid moves the temporal position."""
    try:
        if kind == "image":
            return next(images), 1.0
        grid, seconds = next(videos)
    except StopIteration:
        raise ConfigError(f"the tokens hold more {kind}s than there are {kind} grids.") from None
    per_second = tower.tokens_per_second
    return grid, 1.0 if per_second is None else per_second * seconds


def _block(grid: Grid, step: float, merge: int) -> np.ndarray:
    t, h, w = grid
    return np.floor(inside_block(raster(t, h // merge, w // merge), float(np.float32(step))))
