"""`flash_attention` for every device that XLA compiles for: blocks of queries against all keys, forward and backward."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from pallas_kernels.masking import FAR, pairs

SCORES = 2**25  # scores that may exist at once: 128 MiB of float32
SPANS = 8  # parts of a sequence in order: each is computed against what stands before its end only
SPAN = 256  # tokens of the smallest: 28 layers of 600 tokens compile in 1.7 s on two cores, with 64 in 6.4 s for 13 % less time

Tokens = Int[Array, "B T"]


def forward(
    query: Float[Array, "B T N H"],
    keys: Float[Array, "B T K H"],
    values: Float[Array, "B T K H"],
    order: Tokens,
    segment_ids: Tokens | None,
    *,
    in_order: bool = False,
    **options: Any,
) -> tuple[Float[Array, "B T N H"], Float[Array, "B N T"]]:
    parts = []
    for start, end in _spans(query, in_order):
        rows = query[:, start:end], order[:, start:end], _part(segment_ids, start, end)
        seen = keys[:, :end], values[:, :end], order[:, :end], _part(segment_ids, 0, end)
        parts.append(_forward(rows, seen, **options))
    out, lse = zip(*parts, strict=True)
    return jnp.concatenate(out, 1), jnp.concatenate(lse, 2)


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
    in_order: bool = False,
    **options: Any,
) -> tuple[Float[Array, "B T N H"], Float[Array, "B T K H"], Float[Array, "B T K H"]]:
    d_queries = []
    d_keys, d_values = jnp.zeros_like(keys, jnp.float32), jnp.zeros_like(values, jnp.float32)
    for start, end in _spans(query, in_order):
        rows = query[:, start:end], order[:, start:end], _part(segment_ids, start, end)
        stats = lse[:, :, start:end], delta[:, :, start:end], d_out[:, start:end]
        seen = keys[:, :end], values[:, :end], order[:, :end], _part(segment_ids, 0, end)
        d_query, more_keys, more_values = _backward(rows, stats, seen, **options)
        d_queries.append(d_query)
        d_keys, d_values = d_keys.at[:, :end].add(more_keys), d_values.at[:, :end].add(more_values)
    return jnp.concatenate(d_queries, 1), d_keys.astype(keys.dtype), d_values.astype(values.dtype)


def _spans(query: jax.Array, in_order: bool) -> list[tuple[int, int]]:
    """Parts [start, end) of the queries; keys from `end` on are not needed."""
    tokens = query.shape[1]
    size = max(SPAN, -(-tokens // SPANS)) if in_order else tokens
    return [(start, min(start + size, tokens)) for start in range(0, tokens, size)]


def _part(ids: Tokens | None, start: int, end: int) -> Tokens | None:
    return None if ids is None else ids[:, start:end]


def _forward(
    rows: tuple[Float[Array, "B Q N H"], Tokens, Tokens | None],
    seen: tuple[Float[Array, "B S K H"], Float[Array, "B S K H"], Tokens, Tokens | None],
    *,
    scale: float,
    sink: int | None,
    window: int | None,
) -> tuple[Float[Array, "B Q N H"], Float[Array, "B N Q"]]:
    """Of queries with their order and segments, against keys and values with theirs."""
    (query, q_order, q_segment), (keys, values, order, segment) = rows, seen
    folded, exact = _by_key_head(query, keys), _precision(query)
    size = _block(folded, keys)

    def attend(block: tuple[Any, ...]) -> tuple[jax.Array, jax.Array]:
        query, q_order, q_segment = block
        visible = _visible(q_order, q_segment, order, segment, sink, window)
        score = scale * jnp.einsum("bkgqh,bskh->bkgqs", query, keys, precision=exact, preferred_element_type=jnp.float32)
        score = jnp.where(visible, score, FAR)
        top = jnp.max(score, -1, keepdims=True)
        weight = jnp.where(visible, jnp.exp(score - top), 0)
        total = jnp.maximum(jnp.sum(weight, -1, keepdims=True), jnp.finfo(jnp.float32).tiny)
        lse = jnp.where(top > FAR, top + jnp.log(total), FAR)[..., 0]
        weight = weight.astype(values.dtype)
        out = jnp.einsum("bkgqs,bskh->bkgqh", weight, values, precision=exact, preferred_element_type=jnp.float32)
        return (out / total).astype(query.dtype), lse

    blocks = _cut(folded, size, 3), *_cut_tokens(q_order, q_segment, size)
    out, lse = (_join(x, query.shape[1]) for x in lax.map(attend, blocks))
    return _by_token(out), lse.reshape(lse.shape[0], -1, lse.shape[-1])


def _backward(
    rows: tuple[Float[Array, "B Q N H"], Tokens, Tokens | None],
    stats: tuple[Float[Array, "B N Q"], Float[Array, "B N Q"], Float[Array, "B Q N H"]],
    seen: tuple[Float[Array, "B S K H"], Float[Array, "B S K H"], Tokens, Tokens | None],
    *,
    scale: float,
    sink: int | None,
    window: int | None,
) -> tuple[Float[Array, "B Q N H"], Float[Array, "B S K H"], Float[Array, "B S K H"]]:
    """Of queries with their order and segments, log-sum-exp, delta and d_out, against keys and values with theirs.

    d_keys and d_values are float32.
    """
    (query, q_order, q_segment), (lse, delta, d_out), (keys, values, order, segment) = rows, stats, seen
    folded, d_folded, exact = _by_key_head(query, keys), _by_key_head(d_out, keys), _precision(query)
    size = _block(folded, keys)
    lse, delta = (x.reshape(*folded.shape[:4]) for x in (lse, delta))

    def einsum(formula: str, a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.einsum(formula, a, b, precision=exact, preferred_element_type=jnp.float32)

    def step(sums: tuple[jax.Array, jax.Array], block: tuple[Any, ...]) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        d_keys, d_values = sums
        query, d_out, lse, delta, q_order, q_segment = block
        visible = _visible(q_order, q_segment, order, segment, sink, window)
        score = scale * einsum("bkgqh,bskh->bkgqs", query, keys)
        # Masked scores go before exp: a padded row's log-sum-exp is -1e30, and exp of the difference would be infinite.
        weight = jnp.where(visible, jnp.exp(jnp.where(visible, score - lse[..., None], 0)), 0)
        d_values += einsum("bkgqs,bkgqh->bskh", weight.astype(d_out.dtype), d_out)
        d_weight = einsum("bkgqh,bskh->bkgqs", d_out, values)
        d_score = (scale * weight * (d_weight - delta[..., None])).astype(query.dtype)
        d_keys += einsum("bkgqs,bkgqh->bskh", d_score, query)
        return (d_keys, d_values), einsum("bkgqs,bskh->bkgqh", d_score, keys).astype(query.dtype)

    blocks = *(_cut(x, size, 3) for x in (folded, d_folded, lse, delta)), *_cut_tokens(q_order, q_segment, size)
    zero = jnp.zeros_like(keys, jnp.float32)
    (d_keys, d_values), d_query = lax.scan(step, (zero, zero), blocks)
    return _by_token(_join(d_query, query.shape[1])), d_keys, d_values


def _visible(
    q_order: jax.Array,
    q_segment: jax.Array | None,
    order: jax.Array,
    segment: jax.Array | None,
    sink: int | None,
    window: int | None,
) -> jax.Array:
    """(B, 1, 1, Q, T)."""
    seen = pairs(q_order, order, sink, window)
    if q_segment is not None and segment is not None:
        seen &= q_segment[:, :, None] == segment[:, None, :]
    return seen[:, None, None]


def _precision(x: jax.Array) -> lax.Precision:
    return lax.Precision.HIGHEST if x.dtype == jnp.float32 else lax.Precision.DEFAULT


def _by_key_head(x: jax.Array, keys: jax.Array) -> Float[Array, "B K G T H"]:
    batch, tokens, _, dim = x.shape
    return x.reshape(batch, tokens, keys.shape[2], -1, dim).transpose(0, 2, 3, 1, 4)


def _by_token(x: Float[Array, "B K G T H"]) -> Float[Array, "B T N H"]:
    batch, _, _, tokens, dim = x.shape
    return x.transpose(0, 3, 1, 2, 4).reshape(batch, tokens, -1, dim)


def _block(rows: Float[Array, "B K G Q H"], keys: Float[Array, "B S K H"]) -> int:
    """Queries a block."""
    batch, groups, group, tokens, _ = rows.shape
    return min(tokens, max(16, SCORES // (batch * groups * group * keys.shape[1])))


def _cut(x: jax.Array, size: int, axis: int, padding: int = 0) -> jax.Array:
    """Blocks of `size` along an axis, as a new leading axis."""
    blocks = -(-x.shape[axis] // size)
    pad = [(0, 0)] * x.ndim
    pad[axis] = (0, blocks * size - x.shape[axis])
    x = jnp.pad(x, pad, constant_values=padding)
    return jnp.moveaxis(x.reshape(*x.shape[:axis], blocks, size, *x.shape[axis + 1 :]), axis, 0)


def _cut_tokens(order: jax.Array, segment_ids: jax.Array | None, size: int) -> tuple[jax.Array, jax.Array | None]:
    return _cut(order, size, 1, -1), None if segment_ids is None else _cut(segment_ids, size, 1)


def _join(x: jax.Array, tokens: int) -> jax.Array:
    """Blocks (Q, B, K, G, size, ...) -> (B, K, G, T, ...)."""
    x = jnp.moveaxis(x, 0, 3)
    return x.reshape(*x.shape[:3], -1, *x.shape[5:])[:, :, :, :tokens]
