"""Cross-entropy of the tokens that are learned, without the logits of all tokens ever existing.

At 32,768 tokens and 152,064 words, float32 logits would take 19.9 GB, and most tokens are video, which is not learned. So
learned rows are gathered first and go through the head a chunk at a time; the gradients are formed in the same pass, while
the chunk's logits are there (Liger Kernel, Hsu et al. 2024), and only scaled on the way back.

All of it runs inside `jax.shard_map`. A device scores the rows of its whole group against its own words (`vocabulary.Head`):
what a softmax needs of the others are a maximum and two sums a row.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from svlm_jax.models.layers import precision
from svlm_jax.train.vocabulary import SAMPLES, WORDS, Head

Rows = Float[Array, "learned D"]  # learned tokens
Targets = Int[Array, " learned"]
RowWeights = Float[Array, " learned"]
Sums = Float[Array, "2"]  # weighted sums over tokens: cross-entropy (nats), right first guesses


def learned_first(
    hidden: Float[Array, "B T D"], labels: Int[Array, "B T"], weight: Float[Array, "B"]
) -> tuple[Rows, Targets, RowWeights]:
    """Hidden states, targets and weights of all tokens, those that count before those that do not (weight 0).

    labels[t] is predicted from t - 1, and counts with the weight of its sample unless it is negative.
    """
    tokens, width = hidden.shape[1:]
    targets = jnp.pad(labels[:, 1:], ((0, 0), (0, 1)), constant_values=-1).reshape(-1)
    weights = jnp.where(targets >= 0, jnp.repeat(weight, tokens), 0).astype(jnp.float32)
    first = jnp.argsort(weights == 0, stable=True)
    return hidden.reshape(-1, width)[first], targets[first], weights[first]


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def cross_entropy(rows: Rows, head: Head, targets: Targets, weights: RowWeights, chunk: int) -> Sums:
    """Weighted sums of -log p(target | row) and of right first guesses; float32. Rows of weight 0 must come last.

    chunk: rows of the whole group whose logits exist at once. Devices along `tensor` hold the same rows: one of them says the
    sums, the others 0, and its cotangent must be that of all.
    """

    def body(i: jax.Array, sums: Sums) -> Sums:
        return sums + _chunk(i, rows, head, targets, weights, chunk)[0]

    rows, targets, weights, chunk = _padded(rows, targets, weights, chunk)
    return lax.fori_loop(0, _chunks(weights, chunk), body, jnp.zeros(2))


def _forward(rows: Rows, head: Head, targets: Targets, weights: RowWeights, chunk: int) -> tuple[Sums, tuple[Rows, jax.Array]]:
    count, weight = len(rows), head.weight
    rows, targets, weights, chunk = _padded(rows, targets, weights, chunk)

    def body(i: jax.Array, carry: tuple[Sums, Rows, jax.Array]) -> tuple[Sums, Rows, jax.Array]:
        sums, d_rows, d_weight = carry
        found, part, d_logits = _chunk(i, rows, head, targets, weights, chunk)
        exact = precision(weight.dtype)
        d_part = jnp.einsum("rv,dv->rd", d_logits, weight, precision=exact, preferred_element_type=jnp.float32)
        d_part = lax.psum_scatter(d_part, SAMPLES, tiled=True)
        d_weight += jnp.einsum("rd,rv->dv", part, d_logits, precision=exact, preferred_element_type=jnp.float32)
        return sums + found, lax.dynamic_update_slice(d_rows, d_part.astype(rows.dtype), (i * chunk, 0)), d_weight

    zero = jnp.zeros(2), jnp.zeros_like(rows), jnp.zeros(weight.shape, jnp.float32)
    sums, d_rows, d_weight = lax.fori_loop(0, _chunks(weights, chunk), body, zero)
    return sums, (d_rows[:count], d_weight.astype(weight.dtype))


def _backward(chunk: int, gradients: tuple[Rows, jax.Array], cotangent: Sums) -> tuple[Rows, Head, None, None]:
    d_rows, d_weight = (gradient * cotangent[0].astype(gradient.dtype) for gradient in gradients)
    return d_rows, Head(d_weight, None), None, None  # type: ignore[arg-type]


cross_entropy.defvjp(_forward, _backward)


def _padded(rows: Rows, targets: jax.Array, weights: jax.Array, chunk: int) -> tuple[Rows, jax.Array, jax.Array, int]:
    """To whole chunks, of which each device of a group brings its share; the last is how many rows that is."""
    chunk = min(-(-chunk // lax.axis_size(SAMPLES)), len(rows))
    more = -len(rows) % chunk
    return jnp.pad(rows, ((0, more), (0, 0))), jnp.pad(targets, (0, more)), jnp.pad(weights, (0, more)), chunk


def _chunks(weights: jax.Array, chunk: int) -> jax.Array:
    """Chunks in which something counts, on any device of the group: all of them go the same way."""
    return lax.pmax(-(-jnp.sum(weights != 0) // chunk), SAMPLES)


def _chunk(
    i: jax.Array, rows: Rows, head: Head, targets: jax.Array, weights: jax.Array, chunk: int
) -> tuple[Sums, Float[Array, "rows D"], Float[Array, "rows words"]]:
    """This device's sums of chunk i, the group's rows, and the gradient of their cross-entropy in its own logits."""
    mine = tuple(lax.dynamic_slice_in_dim(x, i * chunk, chunk) for x in (rows, targets, weights))
    part, target, weight = (lax.all_gather(x, SAMPLES, tiled=True) for x in mine)
    exact = precision(head.weight.dtype)
    logits = jnp.einsum("rd,dv->rv", part, head.weight, precision=exact, preferred_element_type=jnp.float32)
    logits = jnp.where(head.ids < 0, -jnp.inf, logits)
    top = lax.pmax(jnp.max(logits, -1), WORDS)
    total = lax.psum(jnp.sum(jnp.exp(logits - top[:, None]), -1), WORDS)
    is_target = (head.ids == target[:, None]) & (head.ids >= 0)
    picked = lax.psum(jnp.sum(jnp.where(is_target, logits, 0), -1), WORDS)
    # Of equal scores the first counts, as `argmax` has it.
    guess = lax.pmin(jnp.min(jnp.where(logits == top[:, None], head.ids, jnp.iinfo(jnp.int32).max), -1), WORDS)
    log_sum = top + jnp.log(total)
    said = jnp.stack([(log_sum - picked) * weight, (guess == target) * weight])
    said = lax.dynamic_slice_in_dim(said, lax.axis_index(SAMPLES) * chunk, chunk, 1).sum(1)
    d_logits = (jnp.exp(logits - log_sum[:, None]) - is_target) * weight[:, None]
    return jnp.where(lax.axis_index("tensor") == 0, said, 0), part, d_logits.astype(part.dtype)
