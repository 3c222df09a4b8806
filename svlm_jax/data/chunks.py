"""Training samples: what a model would read and say during a clip of some seconds, as arrays."""

import dataclasses
from collections.abc import Sequence
from typing import TypeAlias

import jax
import numpy as np

IGNORED = -100  # label of a token that is not learned


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """Samples of one shape, padded at their ends; without the axis B it is a single sample. NumPy arrays, or JAX arrays.

    Attributes:
      tokens: (B, T) int32 ids. Every clip has its run of video pads, in the order of `frames`.
      labels: (B, T) int32. labels[t] is what the model should have said at place t, to be predicted from the places before t
        (no shift has been applied); -100 where nothing is learned. It equals tokens[t] unless the text was noised.
      positions: (B, 3, T) float32, the (t, h, w) position of each token, from 0 in every sample.
      valid: (B, T) bool, False at padding.
      frames: (B, S, F, 3, height, width) uint8 RGB, one clip of F frames for each of S turns.
      clip_valid: (B, S) bool, False for clips that are padding; their frames are zeros and no token stands for them.
      weight: (B,) float32 of the sample in the loss; 0 for one that could not be read.
    """

    tokens: np.ndarray
    labels: np.ndarray
    positions: np.ndarray
    valid: np.ndarray
    frames: np.ndarray
    clip_valid: np.ndarray
    weight: np.ndarray


Sample: TypeAlias = Batch  # a batch without its axis B


def stack(samples: Sequence[Sample]) -> Batch:
    """Samples of one shape as a batch."""
    fields = (field.name for field in dataclasses.fields(Batch))
    return Batch(**{name: np.stack([getattr(sample, name) for sample in samples]) for name in fields})
