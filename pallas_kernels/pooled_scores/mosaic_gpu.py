"""`pooled_scores` for Hopper GPUs: one more product of queries and keys, transposed, so that a slot's sum stays in registers.

    a program owns 128 slots of a key head, 64 a warpgroup, and walks the rows (t, g) in tiles of 64:

        Sᵀ = K Qᵀ          registers (64 slots, 64 rows) float32
        sum += rowsum(exp(scale · Sᵀ - lse))               (64,)

Slots are independent given the rows' log-sum-exp. Where the caller has none, the forward kernel computes it, with the keys
in the place of the values.
"""

import functools
import types
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from pallas_kernels import masking
from pallas_kernels.cache_attention import mosaic_gpu as cache
from pallas_kernels.hopper import blocks, layout, limits
from pallas_kernels.hopper.device import (
    LOG2E,
    PER_COLUMN,
    PER_ROW,
    ROWS,
    Machine,
    along_columns,
    along_rows,
    fetch,
    tile_memory,
)

GROUPS, STAGES = 2, 2
OWN = GROUPS * ROWS  # slots a program
WALK = 64  # rows a walked tile
MASK = blocks.Mask()


def unsupported(query: jax.Array, keys: jax.Array, *rest: Any, **options: Any) -> str | None:
    """Why the kernel cannot run on these arrays; None if it can."""
    return limits.unsupported(query, keys)


def pooled_scores(
    query: jax.Array,
    keys: jax.Array,
    query_index: jax.Array,
    kv_index: jax.Array,
    rope: tuple[jax.Array, jax.Array] | None = None,
    lse: jax.Array | None = None,
    *,
    scale: float,
    interpret: Any = None,
) -> jax.Array:
    """See `api.pooled_scores`. Keys that are turned as they are read, or no multiple of 8, cost a copy of the keys."""
    batch, heads, slots, _ = keys.shape
    group, count = query.shape[2] // heads, query.shape[1]
    keys = masking.turned(keys, rope)
    if lse is None:
        _, lse = cache.cache_attention(
            query, keys, keys, query_index, kv_index, scale=scale, return_lse=True, interpret=interpret
        )  # fmt: skip
    size = max(layout.up(slots, 8), OWN)
    keys, kv_index = layout.pad(keys, 2, size), layout.pad(kv_index, 1, size, value=blocks.PADDING)
    total = layout.up(count * group, WALK)
    rows = layout.pad(layout.fold(query, heads), 2, total)
    order = layout.pad(query_index.repeat(group, axis=1), 1, total, value=blocks.PADDING)
    row_lse = layout.pad(layout.fold_scalars(lse, heads) * LOG2E, 2, total)
    cols = blocks.columns(kv_index, kv_index, OWN)
    visits = blocks.transposed(MASK, order, order, cols, WALK)
    parts = _sums(rows, keys, row_lse, order, cols, visits, scale=scale, machine=Machine(interpret))

    # The last block begins early when the blocks do not divide the slots; what it repeats is zero there and left out.
    repeated = parts.shape[2] * OWN - size
    sums = jnp.concatenate([parts[:, :, :-1].reshape(batch, heads, -1), parts[:, :, -1, repeated:]], axis=-1)
    asking = jnp.maximum((query_index >= 0).sum(-1), 1)
    return sums[:, :, :slots] / (group * asking)[:, None, None]


@functools.partial(jax.jit, static_argnames=("scale", "machine"))
def _sums(
    rows: jax.Array,
    keys: jax.Array,
    lse: jax.Array,
    order: jax.Array,
    cols: blocks.Columns,
    visits: blocks.Lists,
    *,
    scale: float,
    machine: Machine,
) -> jax.Array:
    """Of each slot the weights of all rows, added up: (B, K, blocks, OWN) float32."""
    batch, heads, _, dim = keys.shape
    count = cols.start.shape[0]
    names = "rows", "keys", "lse", "order", "start", "column", "ids", "full", "count", "out"

    def body(*refs: Any, **memory: Any) -> None:
        _program(types.SimpleNamespace(**dict(zip(names, refs, strict=True)), **memory), scale, machine)

    return machine.kernel(
        body,
        out_type=[jax.ShapeDtypeStruct((batch, heads, count, OWN), jnp.float32)],
        grid=(count, heads, batch),
        grid_names=("own", "head", "stream"),
        num_threads=GROUPS + 1,
        thread_name="warpgroup",
        scratch_types=dict(
            k=tile_memory((GROUPS, ROWS, dim), keys.dtype),
            q=tile_memory((STAGES, WALK, dim), rows.dtype),
            walk_lse=plgpu.SMEM((STAGES, WALK), jnp.float32),
            sums=plgpu.SMEM((GROUPS, ROWS), jnp.float32),
            k_ready=plgpu.Barrier(num_barriers=GROUPS),
            q_ready=plgpu.Barrier(num_arrivals=2, num_barriers=STAGES),
            q_used=plgpu.Barrier(num_arrivals=GROUPS, num_barriers=STAGES),
        ),
    )(rows, keys, lse, order, cols.start, cols.order, *visits)[0]


def _program(refs: types.SimpleNamespace, scale: float, machine: Machine) -> None:
    stream, head, own = (lax.axis_index(name) for name in ("stream", "head", "own"))
    group = lax.axis_index("warpgroup")
    full, count = refs.full[stream, own], refs.count[stream, own]
    pairs = (refs.rows, refs.q), (refs.lse, refs.walk_lse)

    @pl.when(group < GROUPS)
    def _() -> None:
        mine = pl.ds(pl.multiple_of(refs.start[own] + group * ROWS, 8), ROWS)
        plgpu.copy_gmem_to_smem(refs.keys.at[stream, head, mine], refs.k.at[group], refs.k_ready.at[group])
        column = machine.load(refs.column.at[stream, own, pl.ds(group * ROWS, ROWS)], PER_ROW)
        plgpu.barrier_wait(refs.k_ready.at[group])
        shape = ROWS, WALK

        def step(j: Any, total: jax.Array, masked: bool) -> jax.Array:
            stage = lax.rem(j, jnp.int32(STAGES))
            if masked:
                walked = pl.ds(refs.ids[stream, own, j] * WALK, WALK)
                order = along_columns(machine.load(refs.order.at[stream, walked], PER_COLUMN), shape)
            plgpu.barrier_wait(refs.q_ready.at[stage])
            score = machine.product(refs.k.at[group], refs.q.at[stage].T)
            lse = machine.load(refs.walk_lse.at[stage], PER_COLUMN)
            plgpu.barrier_arrive(refs.q_used.at[stage])
            weight = jnp.exp2(score * (scale * LOG2E) - along_columns(lse, shape))
            if masked:
                slots = along_rows(column, shape)
                weight = jnp.where(MASK.visible(order, slots, order, slots), weight, 0.0)
            return total + weight.sum(axis=1)

        total = lax.fori_loop(0, full, functools.partial(step, masked=False), machine.full((ROWS,), 0, PER_ROW))
        total = lax.fori_loop(full, count, functools.partial(step, masked=True), total)
        refs.sums.at[group][...] = total
        plgpu.commit_smem()
        plgpu.copy_smem_to_gmem(refs.sums.at[group], refs.out.at[stream, head, own, pl.ds(group * ROWS, ROWS)])
        plgpu.wait_smem_to_gmem(0)

    @pl.when(group == GROUPS)
    def _() -> None:
        fetch(count, lambda j: refs.ids[stream, own, j] * WALK, (stream, head), (refs.q_ready, refs.q_used, *pairs))
