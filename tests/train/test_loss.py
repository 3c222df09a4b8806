"""The chunked cross-entropy against optax over all logits."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from svlm_jax.train.loss import cross_entropy, learned_first

B, T, D, V = 3, 20, 8, 50


def _inputs(learned: int) -> tuple[jax.Array, ...]:
    rng = np.random.default_rng(0)
    labels = np.full((B, T), -100, np.int32)
    labels.reshape(-1)[rng.permutation(B * T)[:learned]] = rng.integers(0, V, learned)
    weight = jnp.asarray([1.0, 0.0, 2.0])
    hidden = jnp.asarray(rng.standard_normal((B, T, D), np.float32))
    return hidden, jnp.asarray(rng.standard_normal((D, V), np.float32)), jnp.asarray(labels), weight


def _full(hidden: jax.Array, head: jax.Array, labels: jax.Array, weight: jax.Array) -> jax.Array:
    logits = jnp.einsum("btd,dv->btv", hidden, head, precision="highest")[:, :-1]
    each = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(labels[:, 1:], 0))
    return jnp.sum(jnp.where(labels[:, 1:] >= 0, each, 0) * weight[:, None])


@pytest.mark.parametrize(("learned", "chunk"), [(17, 4), (17, 512), (0, 4), (60, 7)])
def test_equals_full_logits_in_value_and_gradient(learned: int, chunk: int) -> None:
    hidden, head, labels, weight = _inputs(learned)

    def chunked(hidden: jax.Array, head: jax.Array) -> jax.Array:
        rows, targets, weights = learned_first(hidden, labels, weight)
        return 3 * cross_entropy(rows, head, targets, weights, chunk)[0]

    value, gradients = jax.jit(jax.value_and_grad(chunked, (0, 1)))(hidden, head)
    expected, wanted = jax.value_and_grad(lambda h, w: 3 * _full(h, w, labels, weight), (0, 1))(hidden, head)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for got, want in zip(gradients, wanted, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-4)


def test_shares_of_devices_add_up() -> None:
    hidden, head, labels, weight = _inputs(17)
    shares = []
    for which in range(7):
        rows, targets, weights = learned_first(hidden, labels, weight, share=(which, 7))
        assert bool(jnp.all(jnp.diff((weights == 0).astype(int)) >= 0)), "what counts must come first"
        shares.append(cross_entropy(rows, head, targets, weights, 4))
    np.testing.assert_allclose(sum(shares)[0], _full(hidden, head, labels, weight), rtol=1e-5)


def test_right_first_guesses_are_counted() -> None:
    head = jnp.eye(4)
    rows, targets = 9 * jnp.eye(4), jnp.asarray([0, 1, 3, 3])
    assert cross_entropy(rows, head, targets, jnp.asarray([1.0, 1.0, 1.0, 0.0]), 2)[1] == 2
