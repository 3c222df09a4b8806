"""One optimizer step: micro-batches are added up in float32, weighted by token, then applied at once.

    zeros -> accumulate(batch 1) -> accumulate(batch 2) -> ... -> apply -> state, metrics

Each micro-batch is a program run of its own, so that each may have a shape (length bucket) of its own. The mean is over all
learned tokens of all of them: averaging the means of uneven micro-batches would be another objective.
"""

import dataclasses
import functools
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding

from svlm_jax import sharding
from svlm_jax.data.chunks import Batch
from svlm_jax.errors import ConfigError
from svlm_jax.models.config import ModelConfig
from svlm_jax.models.flat_params import Flat
from svlm_jax.sharding import P
from svlm_jax.train.forward import Compute, loss_sums
from svlm_jax.train.state import Partition, TrainState, abstract_state, abstract_weights

Shape: TypeAlias = tuple[tuple[int, ...], tuple[int, ...]]  # of tokens and of frames


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sums:
    """What micro-batches add up to, float32: gradients, and (3,) cross-entropy (nats), learned tokens, right first guesses."""

    gradients: Flat
    totals: Any


class Step:
    """The compiled programs of a run; `compile` makes them for a batch shape, and no other is accepted after that."""

    def __init__(
        self,
        config: ModelConfig,
        compute: Compute,
        partition: Partition,
        optimizer: optax.GradientTransformation,
        mesh: Mesh,
    ) -> None:
        sharding.check_model(config, mesh)
        self.mesh, self.optimizer = mesh, optimizer
        self.trained, self.frozen = abstract_weights(config, partition, mesh, jnp.dtype(compute.dtype))
        self.state = abstract_state(self.trained, optimizer, mesh)
        self.compiled: dict[Shape, Any] = {}
        self.evaluators: dict[Shape, Any] = {}
        self._applied: Any = None
        self._loss = functools.partial(loss_sums, config, compute, scale=partition.lora.scale)
        whole = NamedSharding(mesh, P())
        where = {path: leaf.sharding for path, leaf in self.trained.items()}
        states = jax.tree.map(lambda leaf: leaf.sharding, self.state)
        # Pinned output shardings: what goes round would otherwise come back under another type, and compile again.
        self._zeros = jax.jit(self._zero, out_shardings=where)
        self._accumulate = jax.jit(self._add, donate_argnums=2, out_shardings=(where, whole))
        self._apply = jax.jit(self._update, donate_argnums=0, out_shardings=(states, None))
        self._evaluate = jax.jit(self._measure, out_shardings=whole)

    def compile(self, shapes: Batch, *, evaluate: bool = False) -> Any:
        """Compiles for a global batch of these shapes (arrays or `jax.ShapeDtypeStruct`); its `jax.stages.Compiled`."""
        where = sharding.batch_shardings(shapes, self.mesh)
        batch = jax.tree.map(lambda leaf, to: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=to), shapes, where)
        with jax.set_mesh(self.mesh):
            if evaluate:
                program = self._evaluate.lower(self.trained, self.frozen, batch).compile()
                self.evaluators[_shape(batch)] = program
            else:
                totals = jax.ShapeDtypeStruct((3,), jnp.float32, sharding=NamedSharding(self.mesh, P()))
                program = self._accumulate.lower(self.trained, self.frozen, self.trained, totals, batch).compile()
                self.compiled[_shape(batch)] = program
                self._applied = self._applied or self._apply.lower(self.state, Sums(self.trained, totals)).compile()
        return program

    def zeros(self) -> Sums:
        """Nothing added up yet."""
        with jax.set_mesh(self.mesh):
            return Sums(self._zeros(), jax.device_put(jnp.zeros(3), NamedSharding(self.mesh, P())))

    def accumulate(self, state: TrainState, frozen: Flat, sums: Sums, batch: Batch) -> Sums:
        """Adds a micro-batch, placed by `sharding.place_batch`; the gradients of `sums` are donated, its totals are not."""
        return Sums(*_known(self.compiled, batch)(state.params, frozen, sums.gradients, sums.totals, batch))

    def apply(self, state: TrainState, sums: Sums) -> tuple[TrainState, dict[str, jax.Array]]:
        """The state after a step (the one before is donated), and {"loss", "accuracy", "tokens", "grad_norm", "skipped"}.

        A step whose loss, gradient or new weights are not finite is skipped (1): weights and optimizer stay as they are.
        """
        assert self._applied is not None, "compile comes first"
        return self._applied(state, sums)

    def evaluate(self, state: TrainState, frozen: Flat, batch: Batch) -> jax.Array:
        """Totals (3,) of a batch: cross-entropy, learned tokens, right first guesses."""
        return _known(self.evaluators, batch)(state.params, frozen, batch)

    def _zero(self) -> Flat:
        return {path: jnp.zeros(leaf.shape, out_sharding=leaf.sharding) for path, leaf in self.trained.items()}

    def _add(self, trained: Flat, frozen: Flat, gradients: Flat, totals: jax.Array, batch: Batch) -> tuple[Flat, jax.Array]:
        def loss(trained: Flat) -> tuple[jax.Array, jax.Array]:
            found = self._loss(trained, frozen, batch)
            return found[0], found

        (_, found), more = jax.value_and_grad(loss, has_aux=True)(trained)
        return jax.tree.map(jnp.add, gradients, more), totals + found

    def _update(self, state: TrainState, sums: Sums) -> tuple[TrainState, dict[str, jax.Array]]:
        # Broken samples weigh nothing; a step in which all are broken changes nothing.
        loss, count, correct = sums.totals
        tokens = jnp.maximum(count, 1)
        gradients = jax.tree.map(lambda leaf: leaf / tokens, sums.gradients)
        norm = optax.tree.norm(gradients)
        updates, opt_state = self.optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        # One that is not finite would spoil every weight for good. What is kept costs nothing: XLA fuses the choice.
        sound = jnp.isfinite(loss) & jnp.isfinite(norm) & jnp.isfinite(optax.tree.norm(params))
        params, opt_state = jax.tree.map(
            lambda new, old: jnp.where(sound, new, old), (params, opt_state), (state.params, state.opt_state)
        )
        metrics = {
            "loss": loss / tokens,
            "accuracy": correct / tokens,
            "tokens": count,
            "grad_norm": norm,
            "skipped": 1.0 - sound,
        }
        return TrainState(params, opt_state, state.step + 1), metrics

    def _measure(self, trained: Flat, frozen: Flat, batch: Batch) -> jax.Array:
        return self._loss(trained, frozen, batch)


def _shape(batch: Batch) -> Shape:
    return tuple(batch.tokens.shape), tuple(batch.frames.shape)


def _known(programs: dict[Shape, Any], batch: Batch) -> Any:
    shape = _shape(batch)
    if shape not in programs:
        tokens, frames = (" x ".join(map(str, part)) for part in shape)
        raise ConfigError(
            f"a batch of tokens {tokens} and frames {frames} is none of the {len(programs)} shapes that were compiled; "
            "expected a batch in one of these."
        )
    return programs[shape]
