"""Cross-entropy of the tokens that are learned, without the logits of all tokens ever existing.

At 32,768 tokens and 152,064 words, float32 logits would take 19.9 GB, and most tokens are video, which is not learned. So
learned rows are gathered first and go through the head a chunk at a time; the gradients are formed in the same pass, while
the chunk's logits are there (Liger Kernel, Hsu et al. 2024), and only scaled on the way back.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from svlm_jax.models.layers import precision

Rows = Float[Array, "learned D"]  # learned tokens
Head = Float[Array, "D V"]
Targets = Int[Array, " learned"]
RowWeights = Float[Array, " learned"]
Sums = Float[Array, "2"]  # weighted sums over tokens: cross-entropy (nats), right first guesses


def learned_first(
    hidden: Float[Array, "B T D"], labels: Int[Array, "B T"], weight: Float[Array, "B"], *, share: tuple[Any, int] = (0, 1)
) -> tuple[Rows, Targets, RowWeights]:
    """Hidden states, targets and weights of all tokens, those that count before those that do not (weight 0).

    labels[t] is predicted from t - 1, and counts with the weight of its sample unless it is negative. `share` (i, n): only
    every n-th token from the i-th on, for device i of n that hold the same tokens.
    """
    batch, tokens, width = hidden.shape
    targets = jnp.pad(labels[:, 1:], ((0, 0), (0, 1)), constant_values=-1).reshape(-1)
    weights = jnp.where(targets >= 0, jnp.repeat(weight, tokens), 0).astype(jnp.float32)
    first = jnp.argsort(weights == 0, stable=True)
    which, of = share
    size = -(-batch * tokens // of)
    # Past the end, `fill` gives weight 0.
    mine = jnp.arange(size) * of + which
    index = first.at[mine].get(mode="fill", fill_value=batch * tokens)
    rows = hidden.reshape(-1, width).at[index].get(mode="fill", fill_value=0)
    return rows, targets.at[index].get(mode="fill", fill_value=-1), weights.at[index].get(mode="fill", fill_value=0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def cross_entropy(rows: Rows, head: Head, targets: Targets, weights: RowWeights, chunk: int) -> Sums:
    """Weighted sums of -log p(target | row) and of right first guesses; float32. Rows of weight 0 must come last."""

    def body(i: jax.Array, sums: Sums) -> Sums:
        return sums + _chunk(i, rows, head, targets, weights, chunk)[0]

    rows, targets, weights, chunk = _padded(rows, targets, weights, chunk)
    return lax.fori_loop(0, _chunks(weights, chunk), body, jnp.zeros(2))


def _forward(rows: Rows, head: Head, targets: Targets, weights: RowWeights, chunk: int) -> tuple[Sums, tuple[Rows, Head]]:
    count = len(rows)
    rows, targets, weights, chunk = _padded(rows, targets, weights, chunk)

    def body(i: jax.Array, carry: tuple[Sums, Rows, jax.Array]) -> tuple[Sums, Rows, jax.Array]:
        sums, d_rows, d_head = carry
        found, part, d_logits = _chunk(i, rows, head, targets, weights, chunk)
        exact = precision(head.dtype)
        d_part = jnp.einsum("rv,dv->rd", d_logits, head, precision=exact, preferred_element_type=jnp.float32)
        d_head += jnp.einsum("rd,rv->dv", part, d_logits, precision=exact, preferred_element_type=jnp.float32)
        return sums + found, lax.dynamic_update_slice(d_rows, d_part.astype(rows.dtype), (i * chunk, 0)), d_head

    zero = jnp.zeros(2), jnp.zeros_like(rows), jnp.zeros(head.shape, jnp.float32)
    sums, d_rows, d_head = lax.fori_loop(0, _chunks(weights, chunk), body, zero)
    return sums, (d_rows[:count], d_head.astype(head.dtype))


def _backward(chunk: int, gradients: tuple[Rows, Head], cotangent: Sums) -> tuple[Rows, Head, None, None]:
    d_rows, d_head = gradients
    return d_rows * cotangent[0].astype(d_rows.dtype), d_head * cotangent[0].astype(d_head.dtype), None, None


cross_entropy.defvjp(_forward, _backward)


def _padded(rows: Rows, targets: jax.Array, weights: jax.Array, chunk: int) -> tuple[Rows, jax.Array, jax.Array, int]:
    """To whole chunks."""
    chunk = min(chunk, len(rows))
    more = -len(rows) % chunk
    return jnp.pad(rows, ((0, more), (0, 0))), jnp.pad(targets, (0, more)), jnp.pad(weights, (0, more)), chunk


def _chunks(weights: jax.Array, chunk: int) -> jax.Array:
    """Chunks in which something counts."""
    return -(-jnp.sum(weights != 0) // chunk)


def _chunk(
    i: jax.Array, rows: Rows, head: Head, targets: jax.Array, weights: jax.Array, chunk: int
) -> tuple[Sums, Rows, jax.Array]:
    """Sums of chunk i, its rows, and the gradient of its cross-entropy in its logits (chunk, V), in the rows' dtype."""
    part, target, weight = (lax.dynamic_slice_in_dim(x, i * chunk, chunk) for x in (rows, targets, weights))
    exact = precision(head.dtype)
    logits = jnp.einsum("rd,dv->rv", part, head, precision=exact, preferred_element_type=jnp.float32)
    log_sum = jax.nn.logsumexp(logits, -1)
    is_target = jnp.arange(head.shape[1]) == target[:, None]
    picked = jnp.sum(jnp.where(is_target, logits, 0), -1)
    right = jnp.argmax(logits, -1) == target
    sums = jnp.stack([jnp.sum((log_sum - picked) * weight), jnp.sum(right * weight)])
    d_logits = (jnp.exp(logits - log_sum[:, None]) - is_target) * weight[:, None]
    return sums, part, d_logits.astype(part.dtype)
