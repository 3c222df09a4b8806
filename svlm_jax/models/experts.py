"""A mixture of experts in place of a decoder's MLP: every token goes through the few experts that its router prefers."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from svlm_jax.models.config import ExpertsConfig
from svlm_jax.models.layers import Linear, precision, scaled_normal


class Experts(nnx.Module):
    """The weights of all experts: gate and up side by side (E, D, 2 I), and down (E, I, D)."""

    def __init__(self, width: int, cfg: ExpertsConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        count, inner = cfg.count, cfg.intermediate_size
        self.gate_up = nnx.Param(scaled_normal(rngs.params(), (count, width, 2 * inner), width, dtype))
        self.down = nnx.Param(scaled_normal(rngs.params(), (count, inner, width), inner, dtype))


class MoE(nnx.Module):
    """sum over a token's best k experts of weight · down(silu(gate(x)) · up(x)) (Shazeer et al. 2017; Qwen3-MoE).

    Weights are the softmax over all experts, scaled so that those of the chosen ones sum to 1. No token is dropped: tokens
    are sorted by expert, and each expert multiplies its own in one grouped product (`lax.ragged_dot`).
    """

    def __init__(self, width: int, cfg: ExpertsConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.cfg = cfg
        self.router = Linear(width, cfg.count, bias=False, dtype=dtype, rngs=rngs)
        self.experts = Experts(width, cfg, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        flat, k = x.reshape(-1, x.shape[-1]), self.cfg.per_token
        share = jax.nn.softmax(self.router(flat).astype(jnp.float32), -1)
        weight, chosen = lax.top_k(share, k)
        weight = weight / weight.sum(-1, keepdims=True)

        by_expert = jnp.argsort(chosen.reshape(-1), stable=True)  # of the n · k pairs of a token and an expert
        token = by_expert // k
        sizes = jnp.bincount(chosen.reshape(-1), length=self.cfg.count).astype(jnp.int32)
        gate, up = jnp.split(_grouped(flat[token], self.experts.gate_up[...], sizes), 2, -1)
        y = _grouped(jax.nn.silu(gate) * up, self.experts.down[...], sizes)
        y = y.astype(jnp.float32) * weight.reshape(-1)[by_expert, None]
        return jnp.zeros(flat.shape, jnp.float32).at[token].add(y).astype(x.dtype).reshape(x.shape)


def _grouped(
    x: Float[Array, "tokens ins"], weights: Float[Array, "experts ins outs"], sizes: jax.Array
) -> Float[Array, "tokens outs"]:
    """The first sizes[0] rows times the first weight, the next sizes[1] times the second, and so on."""
    y = lax.ragged_dot(x, weights, sizes, precision=precision(weights.dtype), preferred_element_type=jnp.float32)
    return y.astype(x.dtype)
