"""Real shapes by name: a table a kernel (`<kernel>/shapes.py`), shared by tests, device-free compiles and benchmarks."""

import dataclasses
import importlib
from collections.abc import Callable, Iterator
from typing import Any

import jax

from pallas_kernels.dispatch import KERNELS


@dataclasses.dataclass(frozen=True)
class Case:
    """A kernel at a shape.

    Attributes:
      kernel, name: which one, and what the shape stands for.
      sample: key -> the arrays of a call, as they are in practice (orders, empty slots).
      call: (implementation, *arrays) -> outputs; with gradients where the backward pass is meant.
      flops, bytes: multiply-adds x 2 that the visible pairs need, and bytes that must at least be read and written.
    """

    kernel: str
    name: str
    sample: Callable[[jax.Array], tuple[Any, ...]]
    call: Callable[..., Any]
    flops: float
    bytes: float

    @property
    def specs(self) -> tuple[Any, ...]:
        """The arrays of a call as `jax.ShapeDtypeStruct`s."""
        return jax.eval_shape(self.sample, jax.eval_shape(lambda: jax.random.key(0)))


def cases(kernel: str | None = None) -> Iterator[Case]:
    """All cases of a kernel, or of all kernels."""
    for name in KERNELS if kernel is None else (kernel,):
        yield from importlib.import_module(f"pallas_kernels.{name}.shapes").CASES
