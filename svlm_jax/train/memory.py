"""What a training step needs on each device, from compiling it: no weights are loaded, and no accelerator is needed.

On a CPU the figures are an upper bound: XLA for CPUs widens bfloat16 to float32 in places.
"""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import jax

from svlm_jax.data.chunks import Batch
from svlm_jax.train.step import Step


@dataclasses.dataclass(frozen=True)
class Usage:
    """Bytes on each device for one shape of batch.

    Attributes:
      shape: samples and tokens of a global micro-batch.
      state: master weights, optimizer state, frozen weights and the gradients that are added up.
      batch: of one micro-batch. working: the largest sum of intermediate arrays.
    """

    shape: tuple[int, int]
    state: int
    batch: int
    working: int

    @property
    def total(self) -> int:
        return self.state + self.batch + self.working


def report(step: Step, shapes: Iterable[Batch]) -> list[Usage]:
    """Compiles the step for each shape of global batch."""
    found = []
    for batch in shapes:
        memory = step.compile(batch).memory_analysis()
        # Weights, and the gradients that are added up: as many again of what is trained.
        inputs = memory.argument_size_in_bytes - 2 * _bytes(step.trained) - _bytes(step.frozen)
        found.append(Usage(batch.tokens.shape, state_bytes(step), inputs, memory.temp_size_in_bytes))
    return found


def state_bytes(step: Step) -> int:
    """Of each device: master weights, optimizer state, frozen weights and the gradients that are added up."""
    return _bytes(step.state) + _bytes(step.frozen) + _bytes(step.trained)


def _bytes(tree: Any) -> int:
    """Of the part of each array that one device holds."""
    return sum(leaf.dtype.itemsize * math.prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in jax.tree.leaves(tree))
