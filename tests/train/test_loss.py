"""The chunked, vocabulary-parallel cross-entropy against optax over all logits."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from svlm_jax import sharding
from svlm_jax.sharding import AXES, ROWS, MeshConfig, P
from svlm_jax.train.loss import cross_entropy, learned_first
from svlm_jax.train.vocabulary import Head, lookup

B, T, D, V = 4, 20, 8, 50
meshes = pytest.mark.parametrize("mesh", [(1, 1, 1), (1, 2, 2), (1, 4, 1), (2, 2, 1), (1, 1, 2)], ids=str)


def _inputs(learned: int) -> tuple[jax.Array, ...]:
    rng = np.random.default_rng(0)
    labels = np.full((B, T), -100, np.int32)
    labels.reshape(-1)[rng.permutation(B * T)[:learned]] = rng.integers(0, V, learned)
    weight = jnp.asarray([1.0, 0.0, 2.0, 0.5])
    hidden = jnp.asarray(rng.standard_normal((B, T, D), np.float32))
    return hidden, jnp.asarray(rng.standard_normal((D, V), np.float32)), jnp.asarray(labels), weight


def _full(hidden: jax.Array, head: jax.Array, labels: jax.Array, weight: jax.Array) -> jax.Array:
    logits = jnp.einsum("btd,dv->btv", hidden, head, precision="highest")[:, :-1]
    each = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(labels[:, 1:], 0))
    return jnp.sum(jnp.where(labels[:, 1:] >= 0, each, 0) * weight[:, None])


def _cut(mesh: tuple[int, ...], local: Callable[..., Any], *specs: Any) -> Callable[..., jax.Array]:
    """`local` on every device of a mesh; the sums of all devices, added up."""
    on = sharding.make_mesh(MeshConfig(*mesh), jax.devices()[: int(np.prod(mesh))])

    def run(*arrays: jax.Array) -> jax.Array:
        with jax.set_mesh(on):
            placed = [jax.device_put(array, spec) for array, spec in zip(arrays, specs, strict=True)]
            return _jitted(local, specs)(*placed)

    return run


@functools.cache
def _jitted(local: Callable[..., Any], specs: tuple[Any, ...]) -> Callable[..., Any]:
    def total(*arrays: jax.Array) -> tuple[jax.Array, jax.Array]:
        sums = jax.shard_map(lambda *x: local(*x)[None], in_specs=specs, out_specs=P(AXES), check_vma=False)(*arrays)
        return jnp.sum(sums, 0)[0], jnp.sum(sums, 0)

    return jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))


@meshes
@pytest.mark.parametrize(("learned", "chunk"), [(17, 4), (17, 512), (0, 4), (80, 7)])
def test_equals_full_logits_in_value_and_gradient(mesh, learned: int, chunk: int) -> None:
    hidden, head, labels, weight = _inputs(learned)

    def local(hidden: jax.Array, part: jax.Array, labels: jax.Array, weight: jax.Array) -> jax.Array:
        rows, targets, weights = learned_first(hidden, labels, weight)
        assert weights.shape == (hidden.shape[0] * T,)
        return 3 * cross_entropy(rows, Head.of(part), targets, weights, chunk)

    run = _cut(mesh, local, P(ROWS), P("fsdp", "tensor"), P(ROWS), P(ROWS))
    (value, _), gradients = run(hidden, head, labels, weight)
    expected, wanted = jax.value_and_grad(lambda h, w: 3 * _full(h, w, labels, weight), (0, 1))(hidden, head)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for got, want in zip(gradients, wanted, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-4)


def test_what_is_learned_comes_first() -> None:
    hidden, _, labels, weight = _inputs(17)
    rows, targets, weights = learned_first(hidden, labels, weight)
    count = int(jnp.sum(weights != 0))
    assert 0 < count < len(weights) and bool(jnp.all(weights[:count] > 0)) and bool(jnp.all(targets[:count] >= 0))
    first = np.argwhere((labels[:, 1:] >= 0) & (weight[:, None] > 0))[0]
    np.testing.assert_array_equal(rows[0], hidden[tuple(first)])


@meshes
def test_right_first_guesses_are_counted(mesh) -> None:
    """Four words of which the last two are scored equally: the first of them is the guess."""
    rows = jnp.asarray(
        [[9.0, 0, 0, 0], [0, 9, 0, 0], [0, 0, 9, 9], [0, 0, 9, 9], [9, 0, 0, 0], [9, 0, 0, 0], [9, 0, 0, 0], [9, 0, 0, 0]]
    )
    targets, weights = jnp.asarray([0, 1, 2, 3, 1, 0, 0, 0]), jnp.asarray([1.0, 2.0, 4.0, 8.0, 16.0, 0, 0, 0])
    where = P(ROWS)

    def local(rows: jax.Array, part: jax.Array, targets: jax.Array, weights: jax.Array) -> jax.Array:
        order = jnp.argsort(weights == 0, stable=True)
        return cross_entropy(rows[order], Head.of(part), targets[order], weights[order], 2)

    (_, sums), _ = _cut(mesh, local, where, P("fsdp", "tensor"), where, where)(rows, jnp.eye(4), targets, weights)
    assert sums[1] == 1 + 2 + 4


@meshes
def test_embeddings_are_looked_up_where_they_lie(mesh) -> None:
    rng = np.random.default_rng(0)
    table, tokens = jnp.asarray(rng.standard_normal((V, D), np.float32)), jnp.asarray(rng.integers(0, V, (B, T)))
    cotangent = jnp.asarray(rng.standard_normal((B, T, D), np.float32))

    def local(table: jax.Array, cotangent: jax.Array, tokens: jax.Array) -> jax.Array:
        x = lookup(table, tokens, jnp.float32)
        return jnp.stack([jnp.sum(x * cotangent), jnp.sum(x)]) / jax.lax.axis_size("tensor")

    (value, _), (gradient, rows) = _cut(mesh, local, P("tensor", "fsdp"), P(ROWS), P(ROWS))(table, cotangent, tokens)
    expected, wanted = jax.value_and_grad(lambda table: jnp.sum(table[tokens] * cotangent))(table)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, wanted, atol=1e-5)
    np.testing.assert_array_equal(rows, table[tokens])
