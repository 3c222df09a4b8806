"""`flash_attention` on GPUs by cuDNN, for rows of one sequence in its order: all that training asks for. From Ampere on.

What cuDNN lacks here: sinks (other than in a dense mask), and packed sequences whose number is not known beforehand.

JAX's public function either gives the log-sum-exp, rounded to the dtype of the queries, or has a derivative. Here both are
wanted, for the forward pass may be saved and not run again, so what lies under it is called; the derivative's arguments are
passed by name, for they are not the same in jax 0.10.2 and 0.12.
"""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
from jax._src.cudnn import fused_attention_stablehlo as cudnn
from jaxtyping import Array, Float, Int

from pallas_kernels.hopper.limits import not_half_precision

Tokens = Int[Array, "B T"]


def unsupported(
    query: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    order: Tokens,
    segment_ids: Tokens | None,
    *of_backward: Any,
    in_order: bool,
    sink: int | None = None,
    **options: Any,
) -> str | None:
    """Why cuDNN cannot compute this; None if it can."""
    if not in_order:
        return "cuDNN cannot follow an order that is given as an array"
    if segment_ids is not None:
        return "cuDNN would have to know the number of packed sequences beforehand"
    if sink:
        return "cuDNN knows no sinks"
    if of_backward and of_backward[0] is None:
        return "cuDNN's log-sum-exp has no derivative"
    if (reason := not_half_precision(query, keys, values)) is not None:
        return reason
    if (dim := query.shape[-1]) % 8 or dim > 128:
        return f"a head dimension of {dim} is not a multiple of 8 up to 128"
    return None


def forward(
    query: Float[Array, "B T N H"],
    keys: Float[Array, "B T K H"],
    values: Float[Array, "B T K H"],
    order: Tokens,
    segment_ids: None,
    *,
    scale: float,
    sink: None = None,
    window: int | None = None,
    in_order: bool = True,
) -> tuple[Float[Array, "B T N H"], Float[Array, "B N T"]]:
    out, lse = cudnn.dot_product_attention(
        query, keys, values,
        scale=scale, mask_type=cudnn.MaskType.CAUSAL, sliding_window_length=window, return_residual=True,
    )  # fmt: skip
    return out, lse


def backward(
    query: Float[Array, "B T N H"],
    keys: Float[Array, "B T K H"],
    values: Float[Array, "B T K H"],
    order: Tokens,
    segment_ids: None,
    out: Float[Array, "B T N H"],
    lse: Float[Array, "B N T"],
    delta: Float[Array, "B N T"],
    d_out: Float[Array, "B T N H"],
    *,
    scale: float,
    sink: None = None,
    window: int | None = None,
    in_order: bool = True,
) -> tuple[Float[Array, "B T N H"], Float[Array, "B T K H"], Float[Array, "B T K H"]]:
    rule: Any = cudnn._dot_product_attention_bwd_rule
    none = jnp.zeros(0, query.dtype)
    static = {
        "scale": scale, "seed": 42, "dropout_rate": 0.0, "variadic_args": (False, False),  # no dropout, no bias
        "mask_type": cudnn.MaskType.CAUSAL, "layout": cudnn.AttentionLayout.BTNH.value,
        "sliding_window_length": window, "return_residual": False,
    }  # fmt: skip
    names = list(inspect.signature(rule).parameters)[:-2]  # the last two: what the forward pass saved, and d_out
    score_mod = ((),) if "score_mod" in names else ()
    saved = query, keys, values, *(none,) * 7, *score_mod, lse, out
    return rule(*map(static.get, names), saved, d_out.astype(query.dtype))[:3]
