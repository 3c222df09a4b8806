"""`decode_attention` for Hopper GPUs, in two kernels.

The first is that of `cache_attention`, over the slots that hold older tokens, in parts. The second turns the token's key,
merges the parts with the token's own score, and writes the token into the cache, which it holds by reference: nothing waits
for the writes, because nothing reads those slots before the next token.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from pallas_kernels.cache_attention import mosaic_gpu as cache
from pallas_kernels.hopper import blocks, layout, limits
from pallas_kernels.hopper.device import FAR, ROWS, Machine, strided


def unsupported(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    keys: jax.Array,
    rotated: jax.Array,
    values: jax.Array,
    slots: jax.Array,
    query_index: jax.Array,
    kv_index: jax.Array,
    cos: jax.Array,
    sin: jax.Array,
    lanes: jax.Array | None = None,
    live: blocks.LiveBlocks | None = None,
    **options: Any,
) -> str | None:
    """Why the kernel cannot run on these arrays; None if it can."""
    if (reason := limits.unsupported(query, rotated, values)) is not None:
        return reason
    if (reason := limits.not_half_precision(key, value, keys, rotated)) is not None:
        return reason
    if query.shape[-1] != 128:
        return f"a head dimension of {query.shape[-1]} is not 128, one number a thread"
    return f"{rotated.shape[2]} slots are no multiple of 8" if rotated.shape[2] % 8 else None


def decode_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    keys: jax.Array,
    rotated: jax.Array,
    values: jax.Array,
    slots: jax.Array,
    query_index: jax.Array,
    kv_index: jax.Array,
    cos: jax.Array,
    sin: jax.Array,
    lanes: jax.Array | None = None,
    live: blocks.LiveBlocks | None = None,
    *,
    scale: float,
    interpret: Any = None,
) -> Any:
    """See `api.decode_attention`."""
    batch, heads, dim = len(query), rotated.shape[1], query.shape[3]
    group, machine = query.shape[2] // heads, Machine(interpret)
    # Cosines and sines of whole heads, the first half of the sines negative.
    turn = jnp.stack([cos, cos, -sin, sin], 1)[:, :, 0].reshape(batch, 2, dim)
    # Padded here, so that both kernels read the same array.
    rows = layout.pad(layout.fold(_turned(query, turn), heads), 2, ROWS)
    # Older tokens only. Of padding, -1, nothing is older.
    older = jnp.maximum(query_index - 1, -1).repeat(ROWS, axis=1)
    mask = blocks.Mask()
    parts, lse = cache.parts(
        rows,
        older,
        rotated,
        values,
        kv_index,
        real=group,
        scale=scale,
        mask=mask,
        live=blocks.live(kv_index) if live is None else live,
        value_lanes=lanes,
        interpret=interpret,
    )
    # The three as the product of the layer has them side by side, which XLA finds out: no copy.
    new = jnp.concatenate([query.reshape(batch, 1, heads, -1), key, value], -1)[:, 0]
    lanes = jnp.arange(batch, dtype=jnp.int32) if lanes is None else lanes
    # One array of what a row says of itself: each array that a kernel reads is made by a launch.
    numbers = jnp.stack([slots[:, 0], query_index[:, 0], lanes], 1).astype(jnp.int32)
    stores = [jax.new_ref(store) for store in (keys, rotated, values)]
    out = machine.kernel(
        functools.partial(_program, scale=scale, machine=machine),
        out_type=jax.ShapeDtypeStruct((batch, heads, group, dim), query.dtype),
        grid=(group, heads, batch),
        grid_names=("row", "head", "stream"),
        num_threads=1,
        thread_name="warpgroup",
    )(parts, lse, rows, new, turn, numbers, *stores)
    return layout.unfold(out, 1), *(jax.freeze(store) for store in stores)


def _turned(x: jax.Array, turn: jax.Array) -> jax.Array:
    """`reference.turned` by cosines and sines of whole heads (B, 2, H), without a concatenation, a kernel of its own."""
    wide = x.astype(jnp.float32)
    halves = wide.reshape(*x.shape[:-1], 2, -1)
    other = halves[..., ::-1, :].reshape(x.shape)
    return (wide * turn[:, 0, None, None] + other * turn[:, 1, None, None]).astype(x.dtype)


def _program(
    parts: Any,  # (S, B, K, R, H) float32, or the query's dtype when S is 1
    lse: Any,  # (S, B, K, R)
    query: Any,  # (B, K, R, H), rotated
    new: Any,  # (B, K, (G + 2) H), queries, key and value as they come, not rotated
    turn: Any,  # (B, 2, H), cosines and sines
    numbers: Any,  # (B, 3): slot, place and lane of the token
    keys: Any,  # (P, K, C, H), written
    rotated: Any,  # (B, K, C, H), written
    values: Any,  # (P, K, C, H), written
    out: Any,  # (B, K, G, H)
    *,
    scale: float,
    machine: Machine,
) -> None:
    stream, head, row = (lax.axis_index(name) for name in ("stream", "head", "row"))
    dim = out.shape[3]
    one, start = strided(dim), out.shape[2] * dim

    def load(ref: Any, *at: Any) -> jax.Array:
        return machine.load(ref.at[at], one)

    def wide(ref: Any, *at: Any) -> jax.Array:
        return load(ref, *at).astype(jnp.float32)

    def piece(begin: int) -> jax.Array:
        return load(new, stream, head, pl.ds(begin, dim))

    key, value = piece(start), piece(start + dim)
    # The other half of each pair lies half a head further on, or back: a thread reads it from memory.
    lower = lax.broadcasted_iota(jnp.int32, (dim,), 0) < dim // 2 if machine.interpret else _lower(dim, one)
    other = jnp.where(lower, piece(start + dim // 2).astype(jnp.float32), piece(start - dim // 2).astype(jnp.float32))
    turned = (key.astype(jnp.float32) * wide(turn, stream, 0) + other * wide(turn, stream, 1)).astype(key.dtype)

    # Padding does not see itself, and gets 0 of a sum that is finite.
    slot, index, lane = (numbers[stream, i] for i in range(3))
    seen = index >= 0
    own = jnp.where(seen, scale * jnp.sum(wide(query, stream, head, row) * turned.astype(jnp.float32)), FAR)

    def add(split: Any, carry: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        top, total, attended = carry
        score = lse[split, stream, head, row]
        higher = jnp.maximum(top, score)
        before, weight = jnp.exp(top - higher), jnp.exp(score - higher)
        return higher, total * before + weight, attended * before + wide(parts, split, stream, head, row) * weight

    _, total, attended = lax.fori_loop(0, parts.shape[0], add, (own, jnp.float32(1), value.astype(jnp.float32)))
    out[stream, head, row] = (attended * (jnp.where(seen, jnp.float32(1), jnp.float32(0)) / total)).astype(out.dtype)

    @pl.when((row == 0) & (slot < keys.shape[2]) & (lane < keys.shape[0]))
    def write() -> None:
        keys[lane, head, slot], rotated[stream, head, slot], values[lane, head, slot] = key, turned, value


def _lower(dim: int, layout: Any) -> jax.Array:
    """Which numbers of a head are in its first half."""
    return plgpu.broadcasted_iota(jnp.int32, (dim,), 0, layout=layout) < dim // 2
