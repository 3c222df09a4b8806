"""A training step against the inference code: its loss and gradients, on one device and on eight, in pieces and at once."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from svlm_jax import sharding
from svlm_jax.data.chunks import Batch
from svlm_jax.errors import ConfigError
from svlm_jax.models import flat_params, functional
from svlm_jax.models.flat_params import Flat
from svlm_jax.models.functional import Params
from svlm_jax.sharding import MeshConfig
from svlm_jax.train.forward import Compute
from svlm_jax.train.lora import LoraConfig
from svlm_jax.train.optimizer import OptimizerConfig, make_optimizer, schedule
from svlm_jax.train.state import Partition, TrainState, init_state, merged, place_flat
from svlm_jax.train.step import Step
from tests.train import tiny

CONFIG = tiny.config()
EVERYTHING = Partition(freeze=())


def _reference_sum(params: Params, batch: Batch) -> jax.Array:
    """The summed cross-entropy by the code of inference, one sample at a time."""
    model = functional.bind(CONFIG, params)
    total = jnp.zeros(())
    for row in range(len(batch.tokens)):
        clips = batch.frames[row][batch.clip_valid[row]]
        seen = jax.tree.map(lambda x: x.reshape(-1, CONFIG.text.hidden_size), model.encode_video(clips))
        one = slice(row, row + 1)
        logits = model(batch.tokens[one], batch.positions[one], seen, valid=batch.valid[one])[:, :-1]
        labels = batch.labels[one, 1:]
        each = optax.softmax_cross_entropy_with_integer_labels(logits, np.maximum(labels, 0))
        total += jnp.sum(jnp.where(labels >= 0, each, 0)) * batch.weight[row]
    return total


@pytest.fixture(scope="module")
def reference() -> tuple[Batch, float, Flat]:
    """A batch of two samples that weigh differently, its loss, and the gradients of all parameters."""
    batch = tiny.weighing(tiny.batch(CONFIG, rows=2), 1.0, 0.5)
    value, gradients = jax.jit(jax.value_and_grad(functools.partial(_reference_sum, batch=batch)))(tiny.params(CONFIG))
    return batch, float(value), flat_params.from_model(gradients)


def _run(
    mesh: MeshConfig, devices: int, partition: Partition, compute: Compute, learning_rate: float = 1e-3
) -> tuple[Step, TrainState, Flat]:
    on = sharding.make_mesh(mesh, jax.devices()[:devices])
    optimizer = make_optimizer(OptimizerConfig(learning_rate, warmup=0), 10)
    step = Step(CONFIG, compute, partition, optimizer, on)
    flat = place_flat(tiny.params(CONFIG), on)
    state, frozen = init_state(flat, partition, optimizer, on, frozen_dtype=compute.dtype)
    return step, state, frozen


@pytest.fixture(scope="module")
def sharded() -> tuple[Step, TrainState, Flat]:
    """Everything trained in float32 on a mesh of 1 x 2 x 2, clips one after the other."""
    return _run(MeshConfig(1, 2, 2), 4, EVERYTHING, Compute(dtype="float32", loss_rows=4))


def test_sharded_gradients_are_those_of_inference(reference, sharded) -> None:
    batch, loss, wanted = reference
    step, state, frozen = sharded
    step.compile(batch)
    sums = step.accumulate(state, frozen, step.zeros(), sharding.place_batch(batch, step.mesh))
    np.testing.assert_allclose(sums.totals[0], loss, rtol=1e-5)
    assert sums.totals[1] == np.sum((batch.labels >= 0) * batch.weight[:, None])
    assert sums.gradients.keys() == wanted.keys()
    for path, gradient in sums.gradients.items():
        assert gradient.sharding.spec == sharding.spec(path)
        scale = np.abs(wanted[path]).max()
        assert scale > 0, f"{path} is not reached by the loss"
        np.testing.assert_allclose(gradient, wanted[path], atol=2e-5 * scale, err_msg=path)


def test_micro_batches_are_weighted_by_token(reference, sharded) -> None:
    """Two halves with uneven numbers of learned tokens add up to the whole."""
    batch, loss, wanted = reference
    step, state, frozen = sharded
    step.compile(batch)
    halves = [tiny.weighing(batch, 1.0, 0.0), tiny.weighing(batch, 0.0, 0.5)]
    counts = [np.sum((half.labels >= 0) * half.weight[:, None]) for half in halves]
    assert counts[0] != counts[1]
    sums = step.zeros()
    for half in halves:
        sums = step.accumulate(state, frozen, sums, sharding.place_batch(half, step.mesh))
    # A copy, because the fixture's state must outlive the donation.
    after, metrics = step.apply(jax.tree.map(jnp.copy, state), sums)
    tokens = sum(counts)
    norm = np.sqrt(sum(np.sum((np.asarray(leaf) / tokens) ** 2) for leaf in wanted.values()))
    np.testing.assert_allclose(metrics["loss"], loss / tokens, rtol=1e-5)
    np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-4)
    assert after.step == 1
    assert all(after.params[path].sharding == leaf.sharding for path, leaf in state.params.items())
    assert len(step.compiled) == 1


@pytest.mark.slow
def test_bfloat16_frozen_tower_and_every_remat(reference) -> None:
    """One device, the defaults: close to float32, no gradient and no optimizer state for the tower, vision in one go."""
    batch, loss, wanted = reference
    step, state, frozen = _run(MeshConfig(), 1, Partition(), Compute(remat="attention", clips=0))
    step.compile(batch)
    sums = step.accumulate(state, frozen, step.zeros(), sharding.place_batch(batch, step.mesh))
    np.testing.assert_allclose(sums.totals[0], loss, rtol=2e-2)
    assert all(path.startswith("decoder.") for path in state.params)
    assert all(leaf.dtype == jnp.float32 for leaf in state.params.values())
    assert frozen and all(path.startswith("visual.") and leaf.dtype == jnp.bfloat16 for path, leaf in frozen.items())
    for path, gradient in sums.gradients.items():
        assert gradient.dtype == jnp.float32
        cosine = np.vdot(gradient, wanted[path]) / np.linalg.norm(gradient) / np.linalg.norm(wanted[path])
        assert cosine > 0.98, path
    moments = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim]
    assert sum(leaf.size for leaf in moments) == 2 * sum(leaf.size for leaf in state.params.values())


@pytest.mark.slow
def test_adapters_begin_as_the_model_and_learn(reference) -> None:
    batch, loss, _ = reference
    partition = Partition(lora=LoraConfig(rank=2))
    step, state, frozen = _run(MeshConfig(1, 2, 2), 4, partition, Compute(dtype="float32", remat="none"), 1e-2)
    step.compile(batch)
    placed = sharding.place_batch(batch, step.mesh)
    assert all(path.endswith((flat_params.DOWN, flat_params.UP)) for path in state.params)
    losses = []
    for _ in range(3):
        sums = step.accumulate(state, frozen, step.zeros(), placed)
        losses.append(float(sums.totals[0]))
        state, _ = step.apply(state, sums)
    np.testing.assert_allclose(losses[0], loss, rtol=1e-5)
    assert losses[2] < losses[1] < losses[0]
    whole = flat_params.to_model(merged(state.params, frozen, partition.lora))
    changed = _reference_sum(jax.tree.map(np.asarray, whole), batch)
    after = step.accumulate(state, frozen, step.zeros(), placed)
    np.testing.assert_allclose(changed, after.totals[0], rtol=1e-4)


def test_only_compiled_shapes_run(sharded) -> None:
    step, state, frozen = sharded
    longer = tiny.batch(CONFIG, rows=2, tokens=30)
    with pytest.raises(ConfigError, match="a batch of tokens 2 x 30 and frames 2 x 2 x 2 x 3 x 56 x 56 is none of the"):
        step.accumulate(state, frozen, step.zeros(), sharding.place_batch(longer, step.mesh))


def test_schedule_is_the_published_one() -> None:
    rate = schedule(OptimizerConfig(), 1000)
    assert [float(rate(step)) for step in (0, 15, 30)] == pytest.approx([0, 0.5e-5, 1e-5])
    assert float(rate(515)) == pytest.approx(0.5e-5)
    assert float(rate(1000)) == pytest.approx(0, abs=1e-12)


def test_optimizer_values_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"optimizer.beta2 is 1.5, expected 0 to 1"):
        dataclasses.replace(OptimizerConfig(), beta2=1.5)
