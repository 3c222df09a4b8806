"""The backward kernels of training: the weights are computed again from the log-sum-exp (FlashAttention-2, algorithm 2).

    P = exp(scale · Q Kᵀ - lse)      dS = P ∘ (dO Vᵀ - delta)      delta = rowsum(dO ∘ O)

    d_queries: a program owns 64 rows a warpgroup and walks the blocks of keys that they see      dQ = scale · Σ dS K
    d_keys:    a program owns 64 keys a warpgroup and walks the blocks of rows that see them,     dK = scale · Σ dSᵀ Q
               transposed, so that every sum stays in registers; rows of all query heads          dV = Σ Pᵀ dO
               that share the key head are in the list, so nothing is added up afterwards

Both have a memory warpgroup that brings the walked tiles (`device.fetch`). No atomics: the same bits every time.
"""

import functools
import types
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from pallas_kernels.hopper import blocks
from pallas_kernels.hopper.device import (
    DEVICE,
    LOG2E,
    PER_COLUMN,
    PER_ROW,
    ROWS,
    TILE,
    Machine,
    along_columns,
    along_rows,
    fetch,
    tile_memory,
)

GROUPS = 2  # compute warpgroups a program
STAGES = 2  # walked tiles in flight
WALK = 64  # rows or columns a walked tile
OWN = GROUPS * ROWS  # rows or columns a program owns


class Given(NamedTuple):
    """What the forward pass left and what came back; rows as in `forward.Rows`, R and C multiples of OWN."""

    query: jax.Array  # (B, K, R, H)
    keys: jax.Array  # (B, K, C, H)
    values: jax.Array  # (B, K, C, H)
    d_out: jax.Array  # (B, K, R, H)
    lse: jax.Array  # (B, K, R) float32, times log2(e)
    delta: jax.Array  # (B, K, R) float32
    order: jax.Array  # (B, R)
    segment: jax.Array  # (B, R)
    column: jax.Array  # (B, C), EMPTY for columns that no row sees
    column_segment: jax.Array  # (B, C)


@functools.partial(jax.jit, static_argnames=("scale", "mask", "machine"))
def d_queries(given: Given, visits: blocks.Lists, *, scale: float, mask: blocks.Mask, machine: Machine = DEVICE) -> jax.Array:
    """dQ (B, K, R, H) in the queries' dtype; visits: for blocks of OWN rows, blocks of WALK columns."""
    return _call(
        _compute_queries, given, visits, (given.query, given.d_out), (given.keys, given.values), 1, scale, mask, machine
    )[0]


@functools.partial(jax.jit, static_argnames=("scale", "mask", "machine"))
def d_keys_values(
    given: Given, visits: blocks.Lists, *, scale: float, mask: blocks.Mask, machine: Machine = DEVICE
) -> tuple[jax.Array, jax.Array]:
    """dK and dV (B, K, C, H) in the keys' dtype; visits: for blocks of OWN columns, blocks of WALK rows."""
    own, walked = (given.keys, given.values), (given.query, given.d_out)
    d_keys, d_values = _call(_compute_keys, given, visits, own, walked, 2, scale, mask, machine)
    return d_keys, d_values


def _call(
    compute: Any,
    given: Given,
    visits: blocks.Lists,
    own: tuple[jax.Array, jax.Array],
    walked: tuple[jax.Array, jax.Array],
    outputs: int,
    scale: float,
    mask: blocks.Mask,
    machine: Machine,
) -> Any:
    batch, heads, total, dim = own[0].shape
    dtype = given.query.dtype
    scratch: dict[str, Any] = dict(
        own_a=tile_memory((GROUPS, ROWS, dim), dtype),
        own_b=tile_memory((GROUPS, ROWS, dim), dtype),
        walk_a=tile_memory((STAGES, WALK, dim), dtype),
        walk_b=tile_memory((STAGES, WALK, dim), dtype),
        own_ready=plgpu.Barrier(num_arrivals=2, num_barriers=GROUPS),
        a_ready=plgpu.Barrier(num_arrivals=outputs, num_barriers=STAGES),
        b_ready=plgpu.Barrier(num_arrivals=outputs, num_barriers=STAGES),
        a_used=plgpu.Barrier(num_arrivals=GROUPS, num_barriers=STAGES),
        b_used=plgpu.Barrier(num_arrivals=GROUPS, num_barriers=STAGES),
    )
    if walked[0] is given.query:  # rows come with their scalars
        scratch |= dict(walk_lse=plgpu.SMEM((STAGES, WALK), jnp.float32), walk_delta=plgpu.SMEM((STAGES, WALK), jnp.float32))
    if machine.interpret is not None:
        scratch["stage"] = tile_memory((GROUPS, ROWS, WALK), dtype)
    names = "own_from_a", "own_from_b", "walk_from_a", "walk_from_b", *Given._fields[4:], "ids", "full", "count"
    operands = (*own, *walked, *given[4:], *visits)

    def body(*refs: Any, **memory: Any) -> None:
        named = types.SimpleNamespace(**dict(zip(names, refs[: len(names)], strict=True)), results=refs[len(names) :], **memory)
        _program(named, compute, scale, mask, machine)

    return machine.kernel(
        body,
        out_type=[jax.ShapeDtypeStruct((batch, heads, total, dim), dtype)] * outputs,
        grid=(total // OWN, heads, batch),
        grid_names=("own", "head", "stream"),
        num_threads=GROUPS + 1,
        thread_name="warpgroup",
        scratch_types=scratch,
    )(*operands)


def _program(refs: types.SimpleNamespace, compute: Any, scale: float, mask: blocks.Mask, machine: Machine) -> None:
    stream, head, own = (lax.axis_index(name) for name in ("stream", "head", "own"))
    group = lax.axis_index("warpgroup")
    refs.place = (stream, head)
    refs.walk_start = lambda j: refs.ids[stream, own, j] * WALK

    @pl.when(group < GROUPS)
    def _() -> None:
        machine.registers(240, "increase")
        mine = pl.ds(own * OWN + group * ROWS, ROWS)
        for source, memory in ((refs.own_from_a, refs.own_a), (refs.own_from_b, refs.own_b)):
            plgpu.copy_gmem_to_smem(source.at[stream, head, mine], memory.at[group], refs.own_ready.at[group])
        plgpu.barrier_wait(refs.own_ready.at[group])
        step, carry = compute(refs, group, mine, scale, mask, machine)
        full, count = refs.full[stream, own], refs.count[stream, own]
        carry = lax.fori_loop(0, full, functools.partial(step, masked=False), carry)
        carry = lax.fori_loop(full, count, functools.partial(step, masked=True), carry)
        _write(refs, group, mine, carry, scale)

    @pl.when(group == GROUPS)
    def _() -> None:
        machine.registers(24, "decrease")
        with_rows = hasattr(refs, "walk_lse")
        lse, delta = ([(refs.lse, refs.walk_lse)], [(refs.delta, refs.walk_delta)]) if with_rows else ([], [])
        fetch(
            refs.count[stream, own],
            refs.walk_start,
            refs.place,
            (refs.a_ready, refs.a_used, (refs.walk_from_a, refs.walk_a), *lse),
            (refs.b_ready, refs.b_used, (refs.walk_from_b, refs.walk_b), *delta),
        )


def _compute_queries(
    refs: types.SimpleNamespace, group: Any, mine: Any, scale: float, mask: blocks.Mask, machine: Machine
) -> Any:
    stream, head = refs.place
    query, d_out = refs.own_a.at[group], refs.own_b.at[group]
    lse, delta = (machine.load(x.at[stream, head, mine], PER_ROW) for x in (refs.lse, refs.delta))
    order, segment = (machine.load(x.at[stream, mine], PER_ROW) for x in (refs.order, refs.segment))
    shape = ROWS, WALK

    def step(j: Any, carry: tuple[jax.Array, ...], masked: bool) -> tuple[jax.Array, ...]:
        stage = lax.rem(j, jnp.int32(STAGES))
        if masked:
            walked = pl.ds(refs.walk_start(j), WALK)
            column, kin = (machine.load(x.at[stream, walked], PER_COLUMN) for x in (refs.column, refs.column_segment))
        plgpu.barrier_wait(refs.a_ready.at[stage])
        score = machine.product(query, refs.walk_a.at[stage].T)
        weight = jnp.exp2(score * (scale * LOG2E) - along_rows(lse, shape))
        if masked:
            seen = mask.visible(
                along_rows(order, shape), along_columns(column, shape), along_rows(segment, shape), along_columns(kin, shape)
            )
            weight = jnp.where(seen, weight, 0.0)
        plgpu.barrier_wait(refs.b_ready.at[stage])
        d_weight = machine.product(d_out, refs.walk_b.at[stage].T)
        plgpu.barrier_arrive(refs.b_used.at[stage])
        d_score = (weight * (d_weight - along_rows(delta, shape))).astype(query.dtype)
        staging = refs.stage.at[group] if machine.interpret else None
        total = machine.add_product(carry[0], d_score, refs.walk_a.at[stage], staging)
        plgpu.barrier_arrive(refs.a_used.at[stage])
        return (total,)

    return step, (machine.full(query.shape, 0, TILE),)


def _compute_keys(refs: types.SimpleNamespace, group: Any, mine: Any, scale: float, mask: blocks.Mask, machine: Machine) -> Any:
    stream = refs.place[0]
    keys, values = refs.own_a.at[group], refs.own_b.at[group]
    column, kin = (machine.load(x.at[stream, mine], PER_ROW) for x in (refs.column, refs.column_segment))
    shape = ROWS, WALK  # keys by rows of queries: all tiles are transposed

    def step(j: Any, carry: tuple[jax.Array, ...], masked: bool) -> tuple[jax.Array, ...]:
        d_keys, d_values = carry
        stage = lax.rem(j, jnp.int32(STAGES))
        walked = pl.ds(refs.walk_start(j), WALK)
        if masked:
            order, segment = (machine.load(x.at[stream, walked], PER_COLUMN) for x in (refs.order, refs.segment))
        staging = refs.stage.at[group] if machine.interpret else None
        plgpu.barrier_wait(refs.a_ready.at[stage])
        score = machine.product(keys, refs.walk_a.at[stage].T)
        lse = machine.load(refs.walk_lse.at[stage], PER_COLUMN)
        weight = jnp.exp2(score * (scale * LOG2E) - along_columns(lse, shape))
        if masked:
            seen = mask.visible(
                along_columns(order, shape), along_rows(column, shape), along_columns(segment, shape), along_rows(kin, shape)
            )
            weight = jnp.where(seen, weight, 0.0)
        plgpu.barrier_wait(refs.b_ready.at[stage])
        d_values = machine.add_product(d_values, weight.astype(keys.dtype), refs.walk_b.at[stage], staging)
        d_weight = machine.product(values, refs.walk_b.at[stage].T)
        delta = machine.load(refs.walk_delta.at[stage], PER_COLUMN)
        plgpu.barrier_arrive(refs.b_used.at[stage])
        d_score = (weight * (d_weight - along_columns(delta, shape))).astype(keys.dtype)
        d_keys = machine.add_product(d_keys, d_score, refs.walk_a.at[stage], staging)
        plgpu.barrier_arrive(refs.a_used.at[stage])
        return d_keys, d_values

    return step, (machine.full(keys.shape, 0, TILE), machine.full(keys.shape, 0, TILE))


def _write(refs: types.SimpleNamespace, group: Any, mine: Any, carry: tuple[jax.Array, ...], scale: float) -> None:
    """Results through the memory of the tiles that the warpgroup owned; the first of them lacks the scale."""
    factors = scale, 1.0
    memories = refs.own_a.at[group], refs.own_b.at[group]
    for memory, x, factor in zip(memories, carry, factors, strict=False):
        memory[...] = (x * factor).astype(memory.dtype)
    plgpu.commit_smem()
    for memory, result in zip(memories, refs.results, strict=False):
        plgpu.copy_smem_to_gmem(memory, result.at[(*refs.place, mine)])
    plgpu.wait_smem_to_gmem(0)
