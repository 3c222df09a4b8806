"""The forward pass of attention on TPUs: rows of queries against blocks of keys, with a running softmax.

    grid (stream b, head j, block of rows i, block of keys s)          s runs innermost, one after the other

    rows     (B, J, R, H)  ──> q  (rows, H)  stays while s runs        on chip, beside the pipeline's two copies of each
    keys     (B, K, C, H)  ──> k  (slots, H) ┐                         block: top, total (rows, 1) and sum (rows, H) in
    values   (B, K, C, H)  ──> v  (slots, H) ┴ block of the schedule    float32, written out after the last s
    orders   (B, 1, R | C) ──> who sees whom

A head j of rows reads key head j · K // J. Callers whose query heads share a key head may lay them side by side as rows
(J = K), so that one block of keys serves the whole group, or keep them apart (J = N), which keeps the schedule short.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float, Int

from pallas_kernels.masking import FAR, Rope, visible
from pallas_kernels.tpu.blocks import block_of, live_blocks, pad_tokens, round_up, schedule

BLOCK_ROWS = 256
BLOCK_KEYS = 512
DTYPES = (jnp.bfloat16, jnp.float32)
TILE_ROWS = 16  # rows of a bfloat16 tile

Segments = tuple[Int[Array, "B R"], Int[Array, "B C"]]


@functools.partial(jax.jit, static_argnames=("scale", "sink", "window", "block_rows", "block_keys", "most", "interpret"))
def attend(
    rows: Float[Array, "B J R H"],
    keys: Float[Array, "B K C H"],
    values: Float[Array, "P K C H"],
    row_order: Int[Array, "B R"],
    key_order: Int[Array, "B C"],
    segments: Segments | None = None,
    rope: Rope | None = None,
    value_lanes: Int[Array, "B"] | None = None,
    *,
    scale: float,
    sink: int | None = None,
    window: int | None = None,
    block_rows: int = BLOCK_ROWS,
    block_keys: int = BLOCK_KEYS,
    most: int | None = None,
    interpret: Any = False,
) -> tuple[Float[Array, "B J R H"], Float[Array, "B J R"]]:
    """Attention output in the rows' dtype and float32 log-sum-exp; rules of visibility as in `masking`.

    segments: rows and keys see each other only where these are equal. rope: turns the keys as they are read.
    value_lanes: the row of `values` that each row of `rows` reads, where it lies; None = its own.
    most: no block of rows sees more blocks of keys than this. interpret: as in `pl.pallas_call`.
    """
    batch, heads, count, dim = rows.shape
    key_heads, slots = keys.shape[1:3]
    block_rows = min(block_rows, round_up(count, TILE_ROWS))
    block_keys = min(block_keys, round_up(slots, 128))
    padded, width = round_up(count, block_rows), round_up(slots, block_keys)
    steps = padded // block_rows, width // block_keys if most is None else most

    rows = jnp.pad(rows, ((0, 0), (0, 0), (0, padded - count), (0, 0)))
    row_order, key_order = pad_tokens(row_order, padded), pad_tokens(key_order, width)
    if segments is not None:
        segments = pad_tokens(segments[0], padded), pad_tokens(segments[1], width)
    live = live_blocks(row_order, key_order, segments, block_rows=block_rows, block_keys=block_keys, sink=sink, window=window)

    def key_block(b: Any, i: Any, s: Any, plan: Any) -> Any:
        return block_of(plan[(b * steps[0] + i) * steps[1] + s])

    lanes = jnp.arange(batch, dtype=jnp.int32) if value_lanes is None else jnp.clip(value_lanes, 0, len(values) - 1)
    by_row = pl.BlockSpec((1, 1, block_rows, dim), lambda b, j, i, s, plan, lanes: (b, j, i, 0))
    by_key = pl.BlockSpec(
        (1, 1, block_keys, dim), lambda b, j, i, s, plan, lanes: (b, j * key_heads // heads, key_block(b, i, s, plan), 0)
    )
    by_value = pl.BlockSpec(
        (1, 1, block_keys, dim),
        lambda b, j, i, s, plan, lanes: (lanes[b], j * key_heads // heads, key_block(b, i, s, plan), 0),
    )
    row_line = pl.BlockSpec((1, 1, block_rows), lambda b, j, i, s, plan, lanes: (b, 0, i))
    key_line = pl.BlockSpec((1, 1, block_keys), lambda b, j, i, s, plan, lanes: (b, 0, key_block(b, i, s, plan)))
    angle = pl.BlockSpec((1, block_keys, dim // 2), lambda b, j, i, s, plan, lanes: (b, key_block(b, i, s, plan), 0))
    lines = [(row_order, key_order), *([segments] if segments is not None else [])]
    out, lse = pl.pallas_call(
        functools.partial(_kernel, slots=slots, scale=scale, sink=sink, window=window),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(batch, heads, *steps),
            in_specs=[by_row, by_key, by_value, [(row_line, key_line)] * len(lines), () if rope is None else (angle, angle)],
            out_specs=[by_row, pl.BlockSpec((1, 1, 1, block_rows), lambda b, j, i, s, plan, lanes: (b, j, 0, i))],
            scratch_shapes=[
                pltpu.VMEM((block_rows, 1), jnp.float32),
                pltpu.VMEM((block_rows, 1), jnp.float32),
                pltpu.VMEM((block_rows, dim), jnp.float32),
            ],
        ),
        out_shape=[
            jax.ShapeDtypeStruct(rows.shape, rows.dtype),
            jax.ShapeDtypeStruct((batch, heads, 1, padded), jnp.float32),
        ],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel", "parallel", "arbitrary")),
        interpret=interpret,
        name="attention",
    )(
        schedule(live, most),
        lanes,
        rows,
        keys,
        values,
        [(q[:, None], k[:, None]) for q, k in lines],
        () if rope is None else rope,
    )
    return out[:, :, :count], lse[:, :, 0, :count]


def _kernel(
    plan: Any, lanes: Any, q: Any, k: Any, v: Any, lines: Any, rope: Any, out: Any, lse: Any,
    top: Any, total: Any, weighted: Any, *, slots: int, scale: float, sink: int | None, window: int | None,
) -> None:  # fmt: skip
    (b, i, s), (rows, keys) = (pl.program_id(axis) for axis in (0, 2, 3)), (pl.num_programs(axis) for axis in (2, 3))

    @pl.when(s == 0)
    def _() -> None:
        top[...] = jnp.full_like(top, FAR)
        total[...] = jnp.zeros_like(total)
        weighted[...] = jnp.zeros_like(weighted)

    entry = plan[(b * rows + i) * keys + s]

    @pl.when(entry >= 0)
    def _() -> None:
        score = scale * dot(q[0, 0], turned(k[0, 0], rope), 1, 1)
        seen = visible_block(lines, sink, window)
        score = jnp.where(seen, score, FAR)
        new_top = jnp.maximum(top[...], score.max(1, keepdims=True))
        # Masked twice: in a row that has seen nothing yet, exp(FAR - FAR) is 1.
        weight = jnp.where(seen, jnp.exp(score - new_top), 0)
        faded = jnp.exp(top[...] - new_top)
        total[...] = total[...] * faded + weight.sum(1, keepdims=True)
        weighted[...] = weighted[...] * faded + dot(weight.astype(v.dtype), inside(v[0, 0], entry, slots), 1, 0)
        top[...] = new_top

    @pl.when(s == keys - 1)
    def _() -> None:
        some = total[...] > 0
        safe = jnp.where(some, total[...], 1)
        out[0, 0] = (weighted[...] / safe).astype(out.dtype)
        lse[0, 0] = jnp.where(some, top[...] + jnp.log(safe), FAR).T


def dot(a: jax.Array, b: jax.Array, a_axis: int, b_axis: int) -> jax.Array:
    """Contraction of one axis each, in float32."""
    exact = lax.Precision.HIGHEST if a.dtype == jnp.float32 else lax.Precision.DEFAULT
    axes = (((a_axis,), (b_axis,)), ((), ()))
    return lax.dot_general(a, b, axes, precision=exact, preferred_element_type=jnp.float32)


def visible_block(lines: Any, sink: int | None, window: int | None) -> jax.Array:
    """(rows, keys), from lines of orders and perhaps of segments: pairs of references (1, 1, rows) and (1, 1, keys)."""
    row_order, key_order = lines[0]
    seen = visible(row_order[0].T, key_order[0], sink, window)
    for row, key in lines[1:]:
        seen &= key[0] == row[0].T
    return seen


def inside(x: jax.Array, block: Any, slots: int) -> jax.Array:
    """A block (keys, H) with zeros where it hangs over the end of the array: what lies there may be NaN."""
    size = x.shape[0]
    if slots % size == 0:
        return x
    slot = block * size + lax.broadcasted_iota(jnp.int32, (size, 1), 0)
    return jnp.where(slot < slots, x, jnp.zeros_like(x))


def turned(k: jax.Array, rope: Any) -> jax.Array:
    """Keys (slots, H) turned by the angles of their slots, as in `masking.turned`."""
    if not rope:
        return k
    cos, sin = (x[0].astype(jnp.float32) for x in rope)
    half = k.shape[1] // 2
    exact = k.astype(jnp.float32)
    swapped = jnp.concatenate([-exact[:, half:], exact[:, :half]], 1)
    return (exact * jnp.concatenate([cos, cos], 1) + swapped * jnp.concatenate([sin, sin], 1)).astype(k.dtype)
