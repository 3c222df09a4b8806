"""Attention of one decoded token a stream over a cache that takes it in: the contract and the choice of implementation."""

from typing import Any

from jaxtyping import Array, Float, Int

from pallas_kernels.dispatch import Implementation, call
from pallas_kernels.hopper.blocks import LiveBlocks


def decode_attention(
    query: Float[Array, "B 1 N H"],
    key: Float[Array, "B 1 K H"],
    value: Float[Array, "B 1 K H"],
    keys: Float[Array, "P K C H"],
    rotated: Float[Array, "B K C H"],
    values: Float[Array, "P K C H"],
    slots: Int[Array, "B 1"],
    query_index: Int[Array, "B 1"],
    kv_index: Int[Array, "B C"],
    cos: Float[Array, "B 1 half"],
    sin: Float[Array, "B 1 half"],
    lanes: Int[Array, "B"] | None = None,
    live: LiveBlocks | None = None,
    *,
    scale: float,
    implementation: Implementation = "auto",
) -> Any:  # output (B, 1, N, H), keys, rotated, values
    """`cache_attention` over `rotated` and `values`, once the token has been turned to its position and written to its slot.

    The token's key, the same rotated by `cos` and `sin`, and its value go to `slots` of `keys`, `rotated` and `values`, which
    are updated in place when their caller gives them away; slot C writes nowhere. The token sees itself, and the slots with
    0 <= kv_index < query_index. A query_index of -1 is padding, whose output is 0. lanes: the row of `keys` and `values` that
    each stream owns; None = its own number, and P = B. live: `hopper.blocks.live(kv_index)`, made before a loop over tokens
    in which kv_index stays the same; None = made here, by some ten small kernels on a GPU. No derivative is defined: nothing
    is learned from decoded tokens.
    """
    arrays = query, key, value, keys, rotated, values, slots, query_index, kv_index, cos, sin, lanes, live
    return call("decode_attention", implementation, arrays, {"scale": scale}, own_gradient=True)
