"""`cache_attention` for every device that XLA compiles for.

Query heads are grouped by the key head they share, so keys are read where they lie. Long prefills are cut into blocks of
queries: 28 heads x 768 queries x 13,440 slots of float32 scores would be 1.1 GB a layer. On a CPU a long cache is read block by
block of slots, row after row, by the rules of FlashAttention (Dao et al. 2022): scores stay in the processor's cache, and
blocks without a token, and rows without a query, cost nothing.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from pallas_kernels.masking import FAR, Rope, pairs, turned, visible

BLOCK = 128  # queries a block
DENSE_SCORES = 2**25  # scores that may exist at once: 128 MiB of float32
SLOTS = 1024  # slots a block on a CPU
# Of some slots, for each query: the highest score (K, rows, 1), the sum of the weights, and the weighted values (K, rows, H).
Partial = tuple[jax.Array, jax.Array, jax.Array]


def cache_attention(
    query: Float[Array, "B T N H"],
    keys: Float[Array, "B K C H"],
    values: Float[Array, "P K C H"],
    query_index: Int[Array, "B T"],
    kv_index: Int[Array, "B C"],
    rope: Rope | None = None,
    value_lanes: Int[Array, "B"] | None = None,
    scales: tuple[Float[Array, "B K C"], Float[Array, "P K C"]] | None = None,
    *,
    scale: float,
    sink: int | None = None,
    window: int | None = None,
    return_lse: bool = False,
) -> Float[Array, "B T N H"] | tuple[Float[Array, "B T N H"], Float[Array, "B N T"]]:
    keys = turned(keys, rope)
    dense = functools.partial(_dense, scale=scale, sink=sink, window=window, value_lanes=value_lanes, scales=scales)
    blocks = functools.partial(_blocks, scale=scale, sink=sink, window=window, value_lanes=value_lanes)
    if keys.shape[2] >= 2 * SLOTS and scales is None:
        out, lse = lax.platform_dependent(query, keys, values, query_index, kv_index, cpu=blocks, default=dense)
    else:
        out, lse = dense(query, keys, values, query_index, kv_index)
    return (out, lse) if return_lse else out


def _blocks(
    query: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    query_index: jax.Array,
    kv_index: jax.Array,
    *,
    scale: float,
    sink: int | None,
    window: int | None,
    value_lanes: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    """Output (B, T, N, H) and log-sum-exp (B, N, T), one block of slots of one row after the other."""
    batch, tokens, heads, dim = query.shape
    groups, slots = keys.shape[1:3]
    product = functools.partial(jnp.einsum, precision=_exact(query), preferred_element_type=jnp.float32)
    lanes = jnp.arange(batch) if value_lanes is None else jnp.clip(value_lanes, 0, len(values) - 1)

    def row(given: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        number, lane, query, query_index, kv_index = given
        rows = query.reshape(tokens, groups, heads // groups, dim).transpose(1, 2, 0, 3).reshape(groups, -1, dim)
        asked = (query_index >= 0).any()

        def block(carry: Partial, begin: jax.Array) -> tuple[Partial, None]:
            start = jnp.minimum(begin, slots - SLOTS)  # the last block begins within the one before it
            index = lax.dynamic_slice(kv_index, (start,), (SLOTS,))
            index = jnp.where(start + jnp.arange(SLOTS) >= begin, index, -1)

            def attend(carry: Partial) -> Partial:
                top, total, out = carry
                some_keys = lax.dynamic_slice(keys, (number, 0, start, 0), (1, groups, SLOTS, dim))[0]
                some_values = lax.dynamic_slice(values, (lane, 0, start, 0), (1, groups, SLOTS, dim))[0]
                score = scale * product("krh,kch->krc", rows, some_keys)
                mask = jnp.where(visible(query_index[:, None], index, sink, window), 0, FAR)
                score = (score.reshape(groups, -1, tokens, SLOTS) + mask).reshape(score.shape)
                higher = jnp.maximum(top, jnp.max(score, -1, keepdims=True))
                weight, fade = jnp.exp(score - higher), jnp.exp(top - higher)
                added = product("krc,kch->krh", weight.astype(values.dtype), some_values)
                return higher, total * fade + jnp.sum(weight, -1, keepdims=True), out * fade + added

            carry = lax.cond(asked & (index >= 0).any(), attend, lambda carry: carry, carry)
            return carry, None

        empty = jnp.zeros((*rows.shape[:2], 1), jnp.float32)
        start: Partial = (empty + FAR, empty, jnp.zeros(rows.shape, jnp.float32))
        (top, total, out), _ = lax.scan(block, start, jnp.arange(0, slots, SLOTS))
        seen = top > FAR / 2
        lse = jnp.where(seen, top + jnp.log(jnp.where(seen, total, 1)), FAR).reshape(heads, tokens)
        out = jnp.where(seen, out / jnp.where(seen, total, 1), 0).reshape(groups, -1, tokens, dim)
        return out.transpose(2, 0, 1, 3).reshape(query.shape).astype(query.dtype), lse

    return lax.map(row, (jnp.arange(batch), lanes, query, query_index, kv_index))


def _dense(
    query: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    query_index: jax.Array,
    kv_index: jax.Array,
    *,
    scale: float,
    sink: int | None,
    window: int | None,
    value_lanes: jax.Array | None,
    scales: tuple[jax.Array, jax.Array] | None,
) -> tuple[jax.Array, jax.Array]:
    """Output (B, T, N, H) and log-sum-exp (B, N, T), from the scores of all slots at once."""
    batch, tokens, heads, _ = query.shape

    def attend(query: jax.Array, query_index: jax.Array) -> tuple[jax.Array, jax.Array]:
        return _attend(query, keys, values, pairs(query_index, kv_index, sink, window), scale, value_lanes, scales)

    if tokens <= BLOCK or batch * tokens * heads * keys.shape[2] <= DENSE_SCORES:
        return attend(query, query_index)
    blocks = -(-tokens // BLOCK)
    padding = blocks * BLOCK - tokens
    cut_query = jnp.pad(query, ((0, 0), (0, padding), (0, 0), (0, 0))).reshape(batch, blocks, BLOCK, heads, -1)
    cut_order = jnp.pad(query_index, ((0, 0), (0, padding)), constant_values=-1).reshape(batch, blocks, BLOCK)
    out, lse = lax.map(lambda block: attend(*block), (cut_query.swapaxes(0, 1), cut_order.swapaxes(0, 1)))
    out = out.swapaxes(0, 1).reshape(batch, blocks * BLOCK, heads, -1)[:, :tokens]
    return out, lse.transpose(1, 2, 0, 3).reshape(batch, heads, -1)[:, :, :tokens]


def _exact(query: jax.Array) -> lax.Precision:
    return lax.Precision.HIGHEST if query.dtype == jnp.float32 else lax.Precision.DEFAULT


def _attend(
    query: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    visible: jax.Array,
    scale: float,
    value_lanes: jax.Array | None,
    scales: tuple[jax.Array, jax.Array] | None,
) -> tuple[jax.Array, jax.Array]:
    """Output (B, T, N, H) and log-sum-exp (B, N, T) where visible is (B, T, C)."""
    batch, tokens, heads, dim = query.shape
    groups = keys.shape[1]
    exact = _exact(query)
    # Rows of one key head side by side: one (G·T, H) x (H, C) product a key head.
    rows = query.reshape(batch, tokens, groups, heads // groups, dim).transpose(0, 2, 3, 1, 4)
    rows = rows.reshape(batch, groups, -1, dim)
    # Numbers of 8 bits widen as they are multiplied; a scale a slot belongs to the slot's score, or to its weight.
    score = scale * jnp.einsum(
        "bkrh,bkch->bkrc", rows, keys.astype(query.dtype), precision=exact, preferred_element_type=jnp.float32
    )
    score = score if scales is None else score * scales[0][:, :, None]
    score = score.reshape(batch, groups, heads // groups, tokens, -1)
    # One small mask for all heads, added: its exponentials are exactly 0, and so are whole rows that see nothing below.
    score += jnp.where(visible, 0, FAR)[:, None, None]
    top = jnp.max(score, -1, keepdims=True)
    weight = jnp.exp(score - top)
    total = jnp.sum(weight, -1, keepdims=True)
    seen = top > FAR / 2
    lse = jnp.where(seen, top + jnp.log(total), FAR)[..., 0].reshape(batch, heads, tokens)
    weight = weight.reshape(batch, groups, -1, weight.shape[-1])
    lanes = None if value_lanes is None else jnp.clip(value_lanes, 0, len(values) - 1)
    if scales is not None:
        weight *= (scales[1] if lanes is None else scales[1][lanes])[:, :, None]
    dtype = query.dtype if scales is not None else values.dtype
    weight = weight.astype(dtype)
    weigh = functools.partial(jnp.einsum, precision=exact, preferred_element_type=jnp.float32)
    if lanes is None:
        out = weigh("bkrc,bkch->bkrh", weight, values.astype(dtype))
    else:
        # One row after the other: gathered rows would be a copy of all their values.
        out = lax.map(lambda row: weigh("krc,kch->krh", row[0], values[row[1]].astype(dtype)), (weight, lanes))
    out = jnp.where(seen, out.reshape(batch, groups, heads // groups, tokens, dim) / total, 0)
    return out.transpose(0, 3, 1, 2, 4).reshape(query.shape).astype(query.dtype), lse
