"""The forward kernel: rows of queries against the blocks of keys that their list names, softmax as it goes.

One program of the grid (split, block of rows, key head, stream); R rows are the queries of one key head, B·K·R·H in all.

    memory warpgroup          shared memory                    compute warpgroups (1 or 2), 64 rows each
    K block ids[j]  --TMA-->  K [stage]  (keys, H)  ------->   S = Q Kᵀ          registers (64, keys) float32
    V block ids[j]  --TMA-->  V [stage]  (keys, H)  ------->   O = αO + P V      registers (64, H) float32
                    <--- consumed barriers ---                 m, l              registers (64,)
                              Q [warpgroup] (64, H)

Both compute warpgroups share every K/V tile. They take turns at the tensor cores: while one multiplies, the other
exponentiates (FlashAttention-3, arXiv 2407.08608 section 3.1). With splits > 1 the list of blocks is cut into that many
parts, whose normalised float32 outputs are merged by their log-sum-exp.
"""

import dataclasses
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
    FAR,
    LOG2E,
    PER_COLUMN,
    PER_ROW,
    ROWS,
    SMS,
    TILE,
    Machine,
    along_columns,
    along_rows,
    fetch,
    tile_memory,
)


@dataclasses.dataclass(frozen=True)
class Tiles:
    """How a call is cut: compute warpgroups a program, columns a block, blocks in flight, parts of the list."""

    warpgroups: int
    keys: int
    stages: int
    splits: int

    @property
    def rows(self) -> int:
        return ROWS * self.warpgroups


class Rows(NamedTuple):
    """The queries of each key head and who they are."""

    query: jax.Array  # (B, K, R, H)
    order: jax.Array  # (B, R), -1 for padding
    segment: jax.Array  # (B, R)


def choose(rows: int, columns: int, heads: int, *, rotates: bool = False) -> Tiles:
    """Tiles for `rows` rows a head and `heads` = B·K heads: every multiprocessor busy, each K/V tile read by 128 rows."""
    if rows <= ROWS:
        parts = -(-SMS // heads)
        return Tiles(1, blocks.NARROW, 4, max(1, min(parts, columns // blocks.NARROW)))
    parts = -(-SMS // (heads * -(-rows // (2 * ROWS))))
    splits = max(1, min(parts, columns // 128))
    if rotates:
        return Tiles(2, 128, 2, splits)
    return Tiles(2, 128, 2, 1) if splits == 1 else Tiles(2, 64, 3, splits)


# Compiled as a function of its own: layers that call it alike are traced and lowered once.
@functools.partial(jax.jit, static_argnames=("scale", "mask", "tiles", "kept", "machine"))
def attend(
    rows: Rows,
    keys: jax.Array,
    values: jax.Array,
    cols: blocks.Columns,
    visits: blocks.Lists,
    *,
    scale: float,
    mask: blocks.Mask,
    tiles: Tiles,
    turn: tuple[jax.Array, jax.Array] | None = None,
    value_lanes: jax.Array | None = None,
    kept: int | None = None,
    machine: Machine = DEVICE,
) -> tuple[jax.Array, jax.Array]:
    """Output (splits, B, K, R, H) and log-sum-exp (splits, B, K, R) float32; R a multiple of the tiles' rows.

    The output has the queries' dtype when there is one split, else float32; of a single block of 64 rows, only the first
    `kept` (a multiple of 8) are written. keys and values are (B, K, C, H). `turn`, cosines and sines (B, C, H/2) float32,
    rotates the keys as they are read; they are rounded to their dtype after it. With `value_lanes` (B,), values are
    (P, K, C, H), and stream b reads row value_lanes[b] of them.
    """
    batch, heads, total, dim = rows.query.shape
    groups, stages, split = tiles.warpgroups, tiles.stages, tiles.splits > 1
    kept = total if kept is None or total > ROWS else kept
    assert turn is None or tiles.keys == tiles.rows, "each compute warpgroup rotates 64 columns of a block"
    half = dim if turn is None else dim // 2
    scratch: dict[str, Any] = dict(
        q=tile_memory((groups, ROWS, dim), rows.query.dtype, half),
        k=tile_memory((stages, tiles.keys, dim), keys.dtype, half),
        v=tile_memory((stages, tiles.keys, dim), values.dtype),
        row_lse=plgpu.SMEM((groups, ROWS), jnp.float32),
        q_ready=plgpu.Barrier(num_barriers=groups),
        k_ready=plgpu.Barrier(num_barriers=stages),
        v_ready=plgpu.Barrier(num_barriers=stages),
        k_used=plgpu.Barrier(num_arrivals=groups, num_barriers=stages),
        v_used=plgpu.Barrier(num_arrivals=groups, num_barriers=stages),
        turns=plgpu.Barrier(num_arrivals=groups),
    )
    if split and groups == 1:
        scratch["part"] = plgpu.SMEM((groups, ROWS, dim), jnp.float32)
    if turn is not None:
        scratch["rotated"] = plgpu.Barrier(num_arrivals=groups)
    if machine.interpret is not None:
        scratch["stage"] = tile_memory((groups, ROWS, tiles.keys), values.dtype)
    operands = rows.query, keys, values, rows.order, rows.segment, *cols, *visits, *(turn or ())
    if value_lanes is not None:
        operands += (jnp.clip(value_lanes, 0, len(values) - 1).astype(jnp.int32),)
    return machine.kernel(
        functools.partial(
            _program,
            scale=scale,
            mask=mask,
            tiles=tiles,
            rotates=turn is not None,
            pooled=value_lanes is not None,
            machine=machine,
        ),
        out_type=[
            jax.ShapeDtypeStruct((tiles.splits, batch, heads, kept, dim), jnp.float32 if split else rows.query.dtype),
            jax.ShapeDtypeStruct((tiles.splits, batch, heads, total), jnp.float32),
        ],
        grid=(total // tiles.rows, tiles.splits, heads, batch),
        grid_names=("rows", "split", "head", "stream"),
        num_threads=groups + 1,
        thread_name="warpgroup",
        scratch_types=scratch,
    )(*operands)


class _Place(NamedTuple):
    """Where a program stands in the grid, and which part of its block list is its own."""

    stream: Any
    head: Any
    split: Any
    rows: Any
    first: Any  # into the list
    full: Any  # blocks that need no mask
    count: Any  # blocks


def _place(refs: types.SimpleNamespace, splits: int) -> _Place:
    stream, head, split, rows = (lax.axis_index(name) for name in ("stream", "head", "split", "rows"))
    full, count = refs.full[stream, rows], refs.count[stream, rows]
    share = lax.div(count + (splits - 1), jnp.int32(splits))
    first = split * share
    own = jnp.maximum(jnp.minimum(share, count - first), 0)
    return _Place(stream, head, split, rows, first, jnp.clip(full - first, 0, own), own)


def _program(
    *operands: Any, scale: float, mask: blocks.Mask, tiles: Tiles, rotates: bool, pooled: bool, machine: Machine, **memory: Any
) -> None:
    names = ["query", "keys", "values", "order", "segment", "start", "column", "column_segment", "ids", "full", "count"]
    names += ["cos", "sin"] * rotates + ["value_lanes"] * pooled + ["out", "lse"]
    refs = types.SimpleNamespace(**dict(zip(names, operands, strict=True)), **memory)
    place = _place(refs, tiles.splits)
    group = lax.axis_index("warpgroup")
    grow = tiles.warpgroups == 2  # three warpgroups begin with 168 registers a thread; two have all they can name

    @pl.when(group < tiles.warpgroups)
    def _() -> None:
        if grow:
            machine.registers(240, "increase")
        _compute(refs, place, group, scale, mask, tiles, rotates, machine)

    @pl.when(group == tiles.warpgroups)
    def _() -> None:
        if grow:
            machine.registers(24, "decrease")
        lane = refs.value_lanes[place.stream] if pooled else place.stream
        fetch(
            place.count,
            lambda j: refs.start[refs.ids[place.stream, place.rows, place.first + j]],
            (place.stream, place.head),
            (refs.k_ready, refs.k_used, (refs.keys, refs.k)),
            (refs.v_ready, refs.v_used, (refs.values, refs.v, (lane, place.head))),
        )


def _compute(
    refs: types.SimpleNamespace,
    place: _Place,
    group: Any,
    scale: float,
    mask: blocks.Mask,
    tiles: Tiles,
    rotates: bool,
    machine: Machine,
) -> None:
    """A compute warpgroup: 64 rows against every block of the list."""
    dim = refs.q.shape[-1]
    mine = pl.ds(place.rows * tiles.rows + group * ROWS, ROWS)
    plgpu.copy_gmem_to_smem(refs.query.at[place.stream, place.head, mine], refs.q.at[group], refs.q_ready.at[group])
    order = machine.load(refs.order.at[place.stream, mine], PER_ROW)
    segment = machine.load(refs.segment.at[place.stream, mine], PER_ROW) if mask.segments else order
    plgpu.barrier_wait(refs.q_ready.at[group])

    # Rotating a tile together and taking turns would wait for each other forever.
    alternate = tiles.warpgroups == 2 and not rotates

    def turn() -> None:
        if alternate:
            plgpu.barrier_arrive(refs.turns)
            plgpu.barrier_wait(refs.turns)

    def step(j: Any, carry: tuple[jax.Array, ...], masked: bool) -> tuple[jax.Array, ...]:
        out, top, total = carry
        stage = lax.rem(j, jnp.int32(tiles.stages))
        block = refs.ids[place.stream, place.rows, place.first + j]
        if masked:
            column = machine.load(refs.column.at[place.stream, block], PER_COLUMN)
            kin = machine.load(refs.column_segment.at[place.stream, block], PER_COLUMN) if mask.segments else column
        plgpu.barrier_wait(refs.k_ready.at[stage])
        if rotates:
            _rotate(refs, place, group, refs.k.at[stage], refs.start[block], machine)
        score = machine.product(refs.q.at[group], refs.k.at[stage].T, after=turn) * (scale * LOG2E)
        plgpu.barrier_arrive(refs.k_used.at[stage])
        if masked:
            seen = mask.visible(*(f(x, score.shape) for f, x in (
                (along_rows, order), (along_columns, column), (along_rows, segment), (along_columns, kin)
            )))  # fmt: skip
            score = jnp.where(seen, score, FAR)
        higher = jnp.maximum(top, score.max(axis=1))
        weight = jnp.exp2(score - along_rows(higher, score.shape))
        if masked:
            weight = jnp.where(seen, weight, 0.0)  # a row that has seen nothing yet: exp2(FAR - FAR) is 1
        fade = jnp.exp2(top - higher)
        out *= along_rows(fade, out.shape)
        total = total * fade + weight.sum(axis=1)
        rounded = weight.astype(refs.v.dtype)
        out, total, higher, rounded = lax.optimization_barrier((out, total, higher, rounded))
        if alternate:
            plgpu.barrier_arrive(refs.turns)
        plgpu.barrier_wait(refs.v_ready.at[stage])
        if alternate:
            plgpu.barrier_wait(refs.turns)
        out = machine.add_product(out, rounded, refs.v.at[stage], refs.stage.at[group] if machine.interpret else None)
        plgpu.barrier_arrive(refs.v_used.at[stage])
        return out, higher, total

    carry = machine.full((ROWS, dim), 0, TILE), machine.full((ROWS,), FAR, PER_ROW), machine.full((ROWS,), 0, PER_ROW)
    pl.when(group == 1)(turn)
    carry = lax.fori_loop(0, place.full, functools.partial(step, masked=False), carry)
    carry = lax.fori_loop(place.full, place.count, functools.partial(step, masked=True), carry)
    pl.when(group == 0)(turn)
    _write(refs, place, group, mine, carry)


def _rotate(refs: types.SimpleNamespace, place: _Place, group: Any, tile: Any, start: Any, machine: Machine) -> None:
    """Rotates this warpgroup's 64 columns of a key tile where they lie, then waits for the other's."""
    half = tile.shape[-1] // 2
    own, slots = pl.ds(group * ROWS, ROWS), pl.ds(start + group * ROWS, ROWS)
    left, right = tile.at[own, pl.ds(0, half)], tile.at[own, pl.ds(half, half)]
    cos = machine.load(refs.cos.at[place.stream, slots], TILE)
    sin = machine.load(refs.sin.at[place.stream, slots], TILE)
    a, b = (machine.load(x, TILE).astype(jnp.float32) for x in (left, right))
    left[...] = (a * cos - b * sin).astype(tile.dtype)
    right[...] = (b * cos + a * sin).astype(tile.dtype)
    plgpu.commit_smem()
    plgpu.barrier_arrive(refs.rotated)
    plgpu.barrier_wait(refs.rotated)


def _write(refs: types.SimpleNamespace, place: _Place, group: Any, mine: Any, carry: tuple[jax.Array, ...]) -> None:
    out, top, total = carry
    nothing = total == 0.0  # a row that saw nothing: 0 / 1, and FAR as its log-sum-exp
    total = jnp.where(nothing, 1.0, total)
    out = out / along_rows(total, out.shape)
    refs.row_lse.at[group][...] = jnp.where(nothing, FAR, top * (1 / LOG2E) + jnp.log(total))
    where = place.split, place.stream, place.head
    kept = refs.out.shape[-2]
    if kept < ROWS:
        written = refs.out.at[(*where, pl.ds(0, kept))]
    else:
        written = refs.out.at[(*where, mine)]
    if refs.out.dtype == jnp.float32 and not hasattr(refs, "part"):
        written[...] = out  # four threads write 32 bytes of a row at once: no detour through shared memory
    memory = getattr(refs, "part", refs.q).at[group]
    if memory.dtype == refs.out.dtype:
        memory[...] = out.astype(memory.dtype)
    plgpu.commit_smem()
    if memory.dtype == refs.out.dtype:
        plgpu.copy_smem_to_gmem(memory.at[pl.ds(0, min(kept, ROWS))], written)
    plgpu.copy_smem_to_gmem(refs.row_lse.at[group], refs.lse.at[(*where, mine)])
    plgpu.wait_smem_to_gmem(0)
