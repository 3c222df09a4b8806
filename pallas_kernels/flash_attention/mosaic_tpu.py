"""`flash_attention` on TPUs: `tpu.forward`, and a backward pass that computes the weights again from the log-sum-exp.

    d_query   grid (b, head n, block of rows i, block of keys s)              sums over s
    d_keys,   grid (b, key head k, block of keys s, head of group g, rows i)  sum over g and i
    d_values

    weight = exp(scale · q · kᵀ - lse)        d_values = weightᵀ · d_out
    d_score = scale · weight · (d_out · vᵀ - delta)     d_query = d_score · k     d_keys = d_scoreᵀ · q

Both visit only the pairs of blocks in which some token sees another (`tpu.blocks`).
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float, Int

from pallas_kernels.cache_attention.mosaic_tpu import unsupported
from pallas_kernels.tpu.blocks import block_of, live_blocks, pad_tokens, round_up, schedule
from pallas_kernels.tpu.forward import attend, dot, visible_block

__all__ = ["backward", "forward", "unsupported"]

BLOCK = 512  # tokens a block, of rows and of keys

Tokens = Int[Array, "B T"]


def forward(
    query: Float[Array, "B T N H"],
    keys: Float[Array, "B T K H"],
    values: Float[Array, "B T K H"],
    order: Tokens,
    segment_ids: Tokens | None,
    *,
    scale: float,
    sink: int | None,
    window: int | None,
    in_order: bool = False,
    interpret: Any = False,
) -> tuple[Float[Array, "B T N H"], Float[Array, "B N T"]]:
    q, k, v = (x.swapaxes(1, 2) for x in (query, keys, values))
    segments = None if segment_ids is None else (segment_ids, segment_ids)
    out, lse = attend(
        q, k, v, order, order, segments, scale=scale, sink=sink, window=window,
        block_rows=BLOCK, block_keys=BLOCK, interpret=interpret,
    )  # fmt: skip
    return out.swapaxes(1, 2), lse


def backward(
    query: Float[Array, "B T N H"],
    keys: Float[Array, "B T K H"],
    values: Float[Array, "B T K H"],
    order: Tokens,
    segment_ids: Tokens | None,
    out: Float[Array, "B T N H"] | None,
    lse: Float[Array, "B N T"],
    delta: Float[Array, "B N T"],
    d_out: Float[Array, "B T N H"],
    *,
    scale: float,
    sink: int | None,
    window: int | None,
    in_order: bool = False,
    interpret: Any = False,
) -> tuple[Float[Array, "B T N H"], Float[Array, "B T K H"], Float[Array, "B T K H"]]:
    tokens = query.shape[1]
    size = min(BLOCK, round_up(tokens, 128))
    padded = round_up(tokens, size)

    def by_head(x: jax.Array) -> jax.Array:
        return jnp.pad(x.swapaxes(1, 2), ((0, 0), (0, 0), (0, padded - tokens), (0, 0)))

    lines = [pad_tokens(x, padded) for x in (order, *([segment_ids] if segment_ids is not None else []))]
    segments = None if segment_ids is None else (lines[1], lines[1])
    live = live_blocks(lines[0], lines[0], segments, block_rows=size, block_keys=size, sink=sink, window=window)
    stats = [jnp.pad(x, ((0, 0), (0, 0), (0, padded - tokens)))[:, :, None] for x in (lse, delta)]
    arrays = [by_head(x) for x in (query, keys, values, d_out)], stats, [x[:, None] for x in lines]
    options = {"size": size, "scale": scale, "sink": sink, "window": window, "interpret": interpret}
    d_query = _d_query(schedule(live), *arrays, **options)
    d_keys, d_values = _d_keys_values(schedule(live.swapaxes(1, 2)), *arrays, **options)
    d_query, d_keys, d_values = (x[:, :, :tokens].swapaxes(1, 2) for x in (d_query, d_keys, d_values))
    return d_query, d_keys, d_values


STATIC = ("size", "scale", "sink", "window", "interpret")


@functools.partial(jax.jit, static_argnames=STATIC)
def _d_query(plan: Any, arrays: Any, stats: Any, lines: Any, *, size: int, interpret: Any, **rules: Any) -> jax.Array:
    batch, heads, tokens, _ = arrays[0].shape
    blocks = tokens // size
    specs = _specs(
        arrays, len(lines), size,
        rows=lambda b, n, i, s, plan: (b, n, i),
        keys=lambda b, n, i, s, plan: (b, n, block_of(plan[(b * blocks + i) * blocks + s])),
    )  # fmt: skip
    return pl.pallas_call(
        functools.partial(_d_query_kernel, **rules),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            grid=(batch, heads, blocks, blocks),
            in_specs=specs,
            out_specs=specs[0][0],
            scratch_shapes=[pltpu.VMEM((size, arrays[0].shape[-1]), jnp.float32)],
        ),
        out_shape=jax.ShapeDtypeStruct(arrays[0].shape, arrays[0].dtype),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel",) * 3 + ("arbitrary",)),
        interpret=interpret,
        name="attention_d_query",
    )(plan, *_operands(arrays, stats, lines))


@functools.partial(jax.jit, static_argnames=STATIC)
def _d_keys_values(
    plan: Any, arrays: Any, stats: Any, lines: Any, *, size: int, interpret: Any, **rules: Any
) -> tuple[jax.Array, jax.Array]:
    query, keys = arrays[:2]
    batch, groups, tokens, dim = keys.shape
    blocks, group = tokens // size, query.shape[1] // groups
    specs = _specs(
        arrays, len(lines), size,
        rows=lambda b, k, s, g, i, plan: (b, k * group + g, block_of(plan[(b * blocks + s) * blocks + i])),
        keys=lambda b, k, s, g, i, plan: (b, k * group, s),
    )  # fmt: skip
    return pl.pallas_call(
        functools.partial(_d_keys_values_kernel, **rules),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            grid=(batch, groups, blocks, group, blocks),
            in_specs=specs,
            out_specs=[specs[0][1], specs[0][2]],
            scratch_shapes=[pltpu.VMEM((size, dim), jnp.float32)] * 2,
        ),
        out_shape=[jax.ShapeDtypeStruct(keys.shape, keys.dtype)] * 2,
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel",) * 3 + ("arbitrary",) * 2),
        interpret=interpret,
        name="attention_d_keys_values",
    )(plan, *_operands(arrays, stats, lines))


def _operands(arrays: Any, stats: Any, lines: Any) -> tuple[Any, ...]:
    return tuple(arrays), tuple(stats), tuple((line, line) for line in lines)


def _specs(arrays: Any, lines: int, size: int, *, rows: Any, keys: Any) -> list[Any]:
    """Specs of `_operands`. rows, keys: grid indices -> (stream, query head, block)."""
    group, dim = arrays[0].shape[1] // arrays[1].shape[1], arrays[0].shape[-1]

    def row(*at: Any) -> Any:
        b, n, i = rows(*at)
        return b, n, i, 0

    def key(*at: Any) -> Any:
        b, n, s = keys(*at)
        return b, n // group, s, 0

    def stat(*at: Any) -> Any:
        b, n, i = rows(*at)
        return b, n, 0, i

    def line(of: Any) -> pl.BlockSpec:
        return pl.BlockSpec((1, 1, size), lambda *at: (of(*at)[0], 0, of(*at)[2]))

    by_row, by_key = pl.BlockSpec((1, 1, size, dim), row), pl.BlockSpec((1, 1, size, dim), key)
    by_stat = pl.BlockSpec((1, 1, 1, size), stat)
    return [(by_row, by_key, by_key, by_row), (by_stat, by_stat), ((line(rows), line(keys)),) * lines]


def _weight_and_d_score(
    arrays: Any, stats: Any, lines: Any, *, scale: float, sink: int | None, window: int | None
) -> tuple[jax.Array, jax.Array]:
    q, k, v, d_out = (x[0, 0] for x in arrays)
    lse, delta = (x[0, 0].T for x in stats)
    weight = jnp.where(visible_block(lines, sink, window), jnp.exp(scale * dot(q, k, 1, 1) - lse), 0)
    return weight, scale * weight * (dot(d_out, v, 1, 1) - delta)


def _d_query_kernel(plan: Any, arrays: Any, stats: Any, lines: Any, d_query: Any, total: Any, **rules: Any) -> None:
    (b, i, s), blocks = (pl.program_id(axis) for axis in (0, 2, 3)), pl.num_programs(3)

    @pl.when(s == 0)
    def _() -> None:
        total[...] = jnp.zeros_like(total)

    @pl.when(plan[(b * blocks + i) * blocks + s] >= 0)
    def _() -> None:
        k = arrays[1][0, 0]
        _, d_score = _weight_and_d_score(arrays, stats, lines, **rules)
        total[...] += dot(d_score.astype(k.dtype), k, 1, 0)

    @pl.when(s == blocks - 1)
    def _() -> None:
        d_query[0, 0] = total[...].astype(d_query.dtype)


def _d_keys_values_kernel(
    plan: Any, arrays: Any, stats: Any, lines: Any, d_keys: Any, d_values: Any, keys: Any, values: Any, **rules: Any
) -> None:
    (b, s, g, i), blocks = (pl.program_id(axis) for axis in (0, 2, 3, 4)), pl.num_programs(4)

    @pl.when((g == 0) & (i == 0))
    def _() -> None:
        keys[...] = jnp.zeros_like(keys)
        values[...] = jnp.zeros_like(values)

    @pl.when(plan[(b * blocks + s) * blocks + i] >= 0)
    def _() -> None:
        q, d_out = arrays[0][0, 0], arrays[3][0, 0]
        weight, d_score = _weight_and_d_score(arrays, stats, lines, **rules)
        values[...] += dot(weight.astype(d_out.dtype), d_out, 0, 0)
        keys[...] += dot(d_score.astype(q.dtype), q, 0, 0)

    @pl.when((g == pl.num_programs(3) - 1) & (i == blocks - 1))
    def _() -> None:
        d_keys[0, 0] = keys[...].astype(d_keys.dtype)
        d_values[0, 0] = values[...].astype(d_values.dtype)
