"""`cache_attention` on TPUs: the query heads that share a key head lie side by side as rows of `tpu.forward`.

A TPU core walks its grid in sequence, so a decoded token needs no split over the cache: the slots stream through the core
once, one block after the other, and cores share the key heads.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from pallas_kernels.masking import Rope
from pallas_kernels.tpu.forward import DTYPES, attend


def unsupported(query: jax.Array, keys: jax.Array, *_: Any, **__: Any) -> str | None:
    """Why the kernel cannot be compiled for these arrays."""
    if query.dtype not in DTYPES or keys.dtype != query.dtype:
        return f"it takes bfloat16 or float32, one dtype for all, not {query.dtype} and {keys.dtype}"
    if query.shape[-1] % 64:
        return f"it needs a head dimension that is a multiple of 64, not {query.shape[-1]}"
    return None


def cache_attention(
    query: Float[Array, "B T N H"],
    keys: Float[Array, "B K C H"],
    values: Float[Array, "P K C H"],
    query_index: Int[Array, "B T"],
    kv_index: Int[Array, "B C"],
    rope: Rope | None = None,
    value_lanes: Int[Array, "B"] | None = None,
    scales: None = None,
    *,
    scale: float,
    sink: int | None = None,
    window: int | None = None,
    return_lse: bool = False,
    interpret: Any = False,
) -> Float[Array, "B T N H"] | tuple[Float[Array, "B T N H"], Float[Array, "B N T"]]:
    if scales is not None:  # the interpreter's way here, which asks nobody
        raise NotImplementedError("cache_attention cannot run as 'interpret': it has no scales of keys and values of 8 bits.")
    batch, tokens, heads, dim = query.shape
    groups = keys.shape[1]
    group = heads // groups
    # Row t · G + g, so that a block of rows covers few tokens: their orders are close, and dead blocks of keys many.
    rows = query.reshape(batch, tokens, groups, group, dim).swapaxes(1, 2).reshape(batch, groups, -1, dim)
    order = jnp.repeat(query_index, group, axis=1)
    out, lse = attend(
        rows,
        keys,
        values,
        order,
        kv_index,
        None,
        rope,
        value_lanes,
        scale=scale,
        sink=sink,
        window=window,
        interpret=interpret,
    )
    out = out.reshape(batch, groups, tokens, group, dim).swapaxes(1, 2).reshape(query.shape)
    lse = lse.reshape(batch, groups, tokens, group).swapaxes(2, 3).reshape(batch, heads, tokens)
    return (out, lse) if return_lse else out
