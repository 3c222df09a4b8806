"""Attention of new tokens over a cache whose slots are in no order: the contract and the choice of implementation."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from pallas_kernels import masking
from pallas_kernels.dispatch import Implementation, call
from pallas_kernels.masking import Rope

Output = Float[Array, "B T N H"]
LogSumExp = Float[Array, "B N T"]


def cache_attention(
    query: Float[Array, "B T N H"],
    keys: Float[Array, "B K C H"],
    values: Float[Array, "P K C H"],
    query_index: Int[Array, "B T"],
    kv_index: Int[Array, "B C"],
    *,
    scale: float,
    sink: int | None = None,
    window: int | None = None,
    rope: Rope | None = None,
    value_lanes: Int[Array, "B"] | None = None,
    scales: tuple[Float[Array, "B K C"], Float[Array, "P K C"]] | None = None,
    return_lse: bool = False,
    implementation: Implementation = "auto",
) -> Any:  # Output, or (Output, LogSumExp) with return_lse
    """softmax(scale · query · keysᵀ) · values over the slots that each query may see, in the query's dtype.

    Query t sees slot c when 0 <= kv_index[c] <= query_index[t] and, given a `window` (StreamingLLM, Xiao et al. 2024),
    kv_index[c] < sink or query_index[t] - kv_index[c] < window. A query that sees nothing (order -1: padding) gets 0.
    Query heads n·G to n·G + G - 1 share key/value head n, G = N / K. Scores and softmax are float32.

    value_lanes: the row of `values` that each row of queries reads, where it lies; a number that is out of range reads some
    row, and its queries should be padding. None = row i reads row i, and P = B.
    scales: of keys and of values that are numbers of 8 bits, one of each slot and head.
    rope: float32 cosines and sines (B, C, H / 2) that turn un-rotated keys as they are read. return_lse: also return the
    float32 log-sum-exp of the visible scores (B, N, T), -1e30 where nothing is visible; see `merge`.
    """
    masking.check(sink, window)
    options = {"scale": scale, "sink": sink, "window": window, "return_lse": return_lse}
    arrays = query, keys, values, query_index, kv_index, rope, value_lanes, scales
    return call("cache_attention", implementation, arrays, options)


def merge(out_a: Output, lse_a: LogSumExp, out_b: Output, lse_b: LogSumExp) -> tuple[Output, LogSumExp]:
    """Attention over two disjoint sets of slots from those over each of them (FlashDecoding, Dao et al. 2023)."""
    top = jnp.maximum(lse_a, lse_b)
    weight_a, weight_b = jnp.exp(lse_a - top), jnp.exp(lse_b - top)
    total = weight_a + weight_b

    def share(weight: LogSumExp) -> Float[Array, "B T N 1"]:
        return (weight / total).swapaxes(1, 2)[..., None]

    out = share(weight_a) * out_a.astype(jnp.float32) + share(weight_b) * out_b.astype(jnp.float32)
    lse = jnp.where(top <= masking.FAR, masking.FAR, top + jnp.log(total))
    return out.astype(out_a.dtype), lse
