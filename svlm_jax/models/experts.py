"""A mixture of experts in place of a decoder's MLP: every token goes through the few experts that its router prefers."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

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
        flat = x.reshape(-1, x.shape[-1])
        _, weight, chosen = self._route(flat)
        return self._mix(flat, weight, chosen, 0).reshape(x.shape)

    def share(
        self, x: Float[Array, "B T D"], valid: Bool[Array, "B T"], first: jax.Array
    ) -> tuple[Float[Array, "B T D"], Float[Array, "2 experts"]]:
        """What the experts from `first` on that are here add to the sum, and the load of all experts.

        The load is a sum over the tokens that are `valid`: how many chose each expert, and the probability that it had.
        """
        flat, real = x.reshape(-1, x.shape[-1]), valid.reshape(-1, 1).astype(jnp.float32)
        share, weight, chosen = self._route(flat)
        times = jax.nn.one_hot(chosen, self.cfg.count).sum(1)
        load = jnp.stack([(times * real).sum(0), (share * real).sum(0)])
        return self._mix(flat, weight, chosen, first).reshape(x.shape), load

    def _route(self, flat: Float[Array, "n D"]) -> tuple[Float[Array, "n experts"], Float[Array, "n k"], Int[Array, "n k"]]:
        """Probabilities of all experts; weights and numbers of the chosen."""
        share = jax.nn.softmax(self.router(flat).astype(jnp.float32), -1)
        weight, chosen = lax.top_k(share, self.cfg.per_token)
        return share, weight / weight.sum(-1, keepdims=True), chosen

    def _mix(self, flat: jax.Array, weight: jax.Array, chosen: jax.Array, first: jax.Array | int) -> Float[Array, "n D"]:
        """The sum over those chosen experts that are here: `first` and those behind it."""
        here = self.experts.gate_up[...].shape[0]
        expert = (chosen.reshape(-1) - first) % self.cfg.count  # those elsewhere come last, and in no group
        by_expert = jnp.argsort(expert, stable=True)  # of the n · k pairs of a token and an expert
        token = by_expert // self.cfg.per_token
        sizes = jnp.bincount(expert, length=self.cfg.count)[:here].astype(jnp.int32)
        weight = jnp.where(expert < here, weight.reshape(-1), 0)
        gate, up = jnp.split(_grouped(flat[token], self.experts.gate_up[...], sizes), 2, -1)
        y = _grouped(jax.nn.silu(gate) * up, self.experts.down[...], sizes)
        y = y.astype(jnp.float32) * weight[by_expert, None]
        return jnp.zeros(flat.shape, jnp.float32).at[token].add(y).astype(flat.dtype)


def balance_loss(load: Float[Array, "2 experts"], rows: Int[Array, ""]) -> Float[Array, ""]:
    """E · sum over experts of (share of the tokens that chose it) · (its mean probability), from sums over `rows` tokens.

    The load-balancing loss of Fedus et al. 2021 (arXiv 2101.03961, equations 4 to 6), over all layers together as
    `transformers` computes it: the number of experts a token when all are equally loaded.
    """
    chosen, share = load / jnp.maximum(rows, 1)
    return load.shape[1] * jnp.sum(chosen * share)


def _grouped(
    x: Float[Array, "tokens ins"], weights: Float[Array, "experts ins outs"], sizes: jax.Array
) -> Float[Array, "tokens outs"]:
    """The first sizes[0] rows times the first weight, the next sizes[1] times the second, and so on."""
    y = lax.ragged_dot(x, weights, sizes, precision=precision(weights.dtype), preferred_element_type=jnp.float32)
    return y.astype(x.dtype)
