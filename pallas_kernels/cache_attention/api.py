"""Attention of new tokens over a cache whose slots are in no order: the contract and the choice of implementation."""

from jaxtyping import Array, Float, Int

from pallas_kernels.cache_attention import reference, xla
from pallas_kernels.dispatch import Implementation, resolve

_RUN = {"reference": reference.cache_attention, "xla": xla.cache_attention}


def cache_attention(
    query: Float[Array, "B T N H"],
    keys: Float[Array, "B K C H"],
    values: Float[Array, "B K C H"],
    query_order: Int[Array, "B T"],
    slot_order: Int[Array, "B C"],
    *,
    scale: float,
    implementation: Implementation = "auto",
) -> Float[Array, "B T N H"]:
    """softmax(scale · query · keysᵀ) · values over the slots that each query may see, in the query's dtype.

    Query t sees slot c when 0 <= slot_order[c] <= query_order[t]; a query that sees nothing (order -1: padding) gets 0.
    Query heads n·G to n·G + G - 1 share key/value head n, G = N / K. Scores and softmax are float32.
    """
    run = _RUN[resolve("cache_attention", implementation)]
    return run(query, keys, values, query_order, slot_order, scale=scale)
