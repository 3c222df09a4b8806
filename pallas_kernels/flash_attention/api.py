"""Causal self-attention of whole, packed sequences: the contract, its derivative, and the choice of implementation.

An implementation is a pair of functions, in the layouts of `flash_attention`:

    forward(query, keys, values, order, segment_ids, *, scale, sink, window, in_order) -> out, lse
    backward(query, keys, values, order, segment_ids, out, lse, delta, d_out, *, scale, sink, window, in_order)
        -> d_query, d_keys, d_values

with delta = sum(d_out · out) - d_lse, (B, N, T) float32 (FlashAttention-2, Dao 2023, algorithm 2). `out` is for a library that
sums delta itself; None when the log-sum-exp was returned too, of whose cotangent such a library knows nothing. in_order
promises that tokens stand in their order; kernels whose blocks look at `order` themselves have no use for it.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from pallas_kernels import masking
from pallas_kernels.dispatch import Implementation, call
from pallas_kernels.flash_attention import reference

Output = Float[Array, "B T N H"]
LogSumExp = Float[Array, "B N T"]

# What a rematerialisation policy may save, so that the backward pass need not run attention again:
# jax.checkpoint_policies.save_only_these_names(OUT_NAME, LSE_NAME).
OUT_NAME, LSE_NAME = "flash_attention_out", "flash_attention_lse"


def flash_attention(
    query: Float[Array, "B T N H"],
    keys: Float[Array, "B T K H"],
    values: Float[Array, "B T K H"],
    *,
    scale: float,
    order: Int[Array, "B T"] | None = None,
    segment_ids: Int[Array, "B T"] | None = None,
    sink: int | None = None,
    window: int | None = None,
    return_lse: bool = False,
    implementation: Implementation = "auto",
) -> Any:  # Output, or (Output, LogSumExp) with return_lse
    """softmax(scale · query · keysᵀ) · values among the tokens of each segment, in the query's dtype; differentiable.

    Token t sees token s of its segment when 0 <= order[s] <= order[t] and, given a `window`, order[s] < sink or
    order[t] - order[s] < window. A token that sees nothing (order -1: padding) gets 0. Query heads n·G to n·G + G - 1 share
    key/value head n, G = N / K. Scores and softmax are float32.

    order: place of each token in its segment; default: counted from the segment's first token, segments being contiguous (and
    half of the work of XLA's implementation: it leaves out what lies ahead).
    segment_ids: which packed sequence a token belongs to; default: one sequence a row. return_lse: also return the float32
    log-sum-exp of the visible scores (B, N, T), -1e30 where nothing is visible.
    """
    masking.check(sink, window)
    in_order = order is None
    if order is None:
        order = place_in_segment(segment_ids) if segment_ids is not None else jnp.arange(query.shape[1])
        order = jnp.broadcast_to(order, query.shape[:2]).astype(jnp.int32)
    options: dict[str, Any] = {"scale": scale, "sink": sink, "window": window, "in_order": in_order}
    if implementation == "reference":
        out, lse = reference.flash_attention(query, keys, values, order, segment_ids, **options)
    else:
        static = tuple(sorted(options.items()))
        out, lse = _flash(implementation, static, return_lse, query, keys, values, order, segment_ids)
    return (out, lse) if return_lse else out


def place_in_segment(segment_ids: Int[Array, "B T"]) -> Int[Array, "B T"]:
    """0, 1, 2, … from the first token of every contiguous segment."""
    place = jnp.broadcast_to(jnp.arange(segment_ids.shape[1], dtype=jnp.int32), segment_ids.shape)
    first = jnp.pad(segment_ids[:, 1:] != segment_ids[:, :-1], ((0, 0), (1, 0)), constant_values=True)
    return place - jax.lax.cummax(jnp.where(first, place, 0), axis=1)


Static = tuple[tuple[str, Any], ...]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _flash(implementation: Implementation, static: Static, lse_used: bool, *arrays: Any) -> tuple[Output, LogSumExp]:
    return call("flash_attention", implementation, arrays, dict(static), function="forward", own_gradient=True)


def _forward(implementation: Implementation, static: Static, lse_used: bool, *arrays: Any) -> tuple[Any, Any]:
    out, lse = _flash(implementation, static, lse_used, *arrays)
    out, lse = checkpoint_name(out, OUT_NAME), checkpoint_name(lse, LSE_NAME)
    return (out, lse), (*arrays, out, lse)


def _backward(implementation: Implementation, static: Static, lse_used: bool, saved: Any, cotangents: Any) -> Any:
    *arrays, out, lse = saved
    d_out, d_lse = cotangents
    delta = jnp.einsum("btnh,btnh->bnt", d_out.astype(jnp.float32), out.astype(jnp.float32)) - d_lse
    arrays = (*arrays, None if lse_used else out, lse, delta, d_out)
    gradients = call("flash_attention", implementation, arrays, dict(static), function="backward", own_gradient=True)
    return (*gradients, None, None)


_flash.defvjp(_forward, _backward)
