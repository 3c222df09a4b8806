"""The instructions that the kernels are written in, on the device and in the interpreter, which lacks some of them.

The interpreter has no register layouts, no product with its left side in registers and no accumulator that begins with a
value: there, values are read plainly, the left side is staged through shared memory, and products are added afterwards.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from pallas_kernels.masking import FAR

__all__ = [
    "DEVICE", "FAR", "LOG2E", "PER_COLUMN", "PER_ROW", "ROWS", "SHARED_MEMORY", "SMS", "TILE",
    "Machine", "along_columns", "along_rows", "fetch", "strided", "tile_memory",
]  # fmt: skip

LOG2E = math.log2(math.e)
TILE = plgpu.Layout.WGMMA  # a (64, n) tile of one warpgroup
PER_ROW = plgpu.Layout.WGMMA.reduce(1)  # one value a row of such a tile
PER_COLUMN = plgpu.Layout.WGMMA.reduce(0)
ROWS = 64  # rows of a warpgroup's product
SHARED_MEMORY = 232_448  # bytes a block may take on Hopper
SMS = 132  # streaming multiprocessors of an H100 or H200


def tile_memory(shape: tuple[int, ...], dtype: Any, part: int | None = None) -> Any:
    """Shared memory whose last two dimensions a product can read: tiles of 8 rows, swizzled as widely as the width allows.

    `part` is the width of the slices that are also read or written.
    """
    width = next((w for w in (64, 32, 16) if (part or shape[-1]) % w == 0), None)
    assert width is not None, f"a width of {shape[-1]} has no swizzle"
    return plgpu.SMEM(shape, dtype, transforms=(plgpu.TilingTransform((8, width)), plgpu.SwizzleTransform(2 * width)))


@dataclasses.dataclass(frozen=True)
class Machine:
    """The device, or its interpreter (`interpret`, parameters of `plgpu.kernel`)."""

    interpret: Any = None

    def load(self, ref: Any, layout: Any) -> jax.Array:
        if self.interpret is not None:
            return ref[...]
        load: Any = plgpu.load  # its signature changed with the versions
        return load(ref, layout=layout, optimized=False)

    def full(self, shape: tuple[int, ...], value: float, layout: Any) -> jax.Array:
        x = jnp.full(shape, value, jnp.float32)
        return x if self.interpret is not None else plgpu.layout_cast(x, layout)

    def product(self, a: Any, b: Any, after: Any = None) -> jax.Array:
        """a · b of two tiles in shared memory, float32; `after` runs when the product has been issued."""

        def run(acc: Any) -> jax.Array:
            plgpu.wgmma(acc, a, b)
            if after is not None:
                after()
            return acc[...]

        return pl.run_scoped(run, plgpu.ACC((a.shape[0], b.shape[1]), jnp.float32))

    def add_product(self, acc: jax.Array, a: jax.Array, b: Any, stage: Any) -> jax.Array:
        """acc + a · b, a in registers, b a tile in shared memory; `stage` is memory for a, used by the interpreter alone."""
        if self.interpret is not None:
            stage[...] = a
            plgpu.commit_smem()
            return acc + self.product(stage, b)
        return pl.run_state(lambda ref: plgpu.wgmma(ref, a, b))(plgpu.ACC.init(acc))

    def registers(self, count: int, action: Literal["increase", "decrease"]) -> None:
        if self.interpret is None:
            plgpu.set_max_registers(count, action=action)

    def kernel(self, body: Any, **keywords: Any) -> Any:
        if self.interpret is not None:
            keywords["interpret"] = self.interpret
        return plgpu.kernel(body, compiler_params=plgpu.CompilerParams(approx_math=True), **keywords)


DEVICE = Machine()


def strided(size: int) -> Any:
    """The layout of a vector of `size` numbers that the threads of a warpgroup share, a multiple of 128."""
    return plgpu.Layout.WG_STRIDED((size,), vec_size=2 if size % 256 == 0 else 1)


def along_rows(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """One value a row, repeated along the row."""
    return lax.broadcast_in_dim(x, shape, [0])


def along_columns(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """One value a column, repeated along the column."""
    return lax.broadcast_in_dim(x, shape, [1])


def fetch(count: Any, start: Callable[[Any], Any], lead: tuple[Any, ...], *copies: tuple[Any, ...]) -> None:
    """The memory warpgroup: for j < count brings the rows from start(j), a multiple of 8, into stage j % stages.

    copies: (ready barriers, used barriers, and pairs of a source and shared memory (stages, rows, ...)); `lead` indexes the
    sources' first axes, unless a third element of a pair does.
    """
    stages, size = copies[0][2][1].shape[:2]

    def step(j: Any, _: None) -> None:
        stage = lax.rem(j, jnp.int32(stages))
        block = pl.ds(pl.multiple_of(start(j), 8), size)
        for ready, used, *pairs in copies:
            pl.when(j >= stages)(functools.partial(plgpu.barrier_wait, used.at[stage]))
            for source, memory, *own in pairs:
                plgpu.copy_gmem_to_smem(source.at[(*(own[0] if own else lead), block)], memory.at[stage], ready.at[stage])

    def drain(j: Any, _: None) -> None:
        for copy in copies:
            plgpu.barrier_wait(copy[1].at[lax.rem(j, jnp.int32(stages))])

    lax.fori_loop(0, count, step, None)
    lax.fori_loop(jnp.maximum(count - stages, 0), count, drain, None)
