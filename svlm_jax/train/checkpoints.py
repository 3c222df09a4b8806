"""Checkpoints of a run: everything that the next step depends on, written while training goes on.

    <folder>/<step>/state   master weights and optimizer state, by Orbax, each process its own part
    <folder>/<step>/data    where the data goes on (one position for all hosts), and the hash of the data
    <folder>/<step>/meta    the model, the configuration, a check sum of the frozen weights

A step's folder gets its name only when it is complete, so a process may die at any time. Random numbers need no state: the
data draws them from seed and position, and a step draws none.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from svlm_jax.checkpoint import orbax_io
from svlm_jax.errors import CheckpointError
from svlm_jax.models import registry
from svlm_jax.models.config import ModelConfig
from svlm_jax.models.flat_params import Flat
from svlm_jax.train.state import TrainState


@dataclasses.dataclass(frozen=True)
class Identity:
    """What a run is about; a checkpoint of another model or of other frozen weights is not loaded into it.

    `frozen` is `checksum` of the frozen weights; `config` is kept for people to read.
    """

    model: ModelConfig
    frozen: float
    config: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        # Through JSON and back, so that tuples compare equal to the lists that are read.
        model = registry.config_to_hf(self.model)
        return json.loads(json.dumps({"model": model, "frozen": self.frozen, "config": self.config}, default=str))


def checksum(frozen: Flat) -> float:
    """Sum of the magnitudes of all weights, in millionths of which runs on different meshes may differ."""

    def total(flat: Flat) -> jax.Array:
        return sum((jnp.sum(jnp.abs(leaf.astype(jnp.float32))) for leaf in flat.values()), jnp.zeros(()))

    return float(jax.jit(total)(frozen))


class Checkpoints:
    """The checkpoints in a folder. Every process calls every method, with the same steps.

    Args:
      keep: how many of the newest stay.
    """

    def __init__(self, folder: str | Path, identity: Identity, *, keep: int = 3) -> None:
        self._identity = identity
        self.folder = Path(folder).expanduser().absolute()
        if self.folder.exists() and not self.folder.is_dir():
            raise CheckpointError(f"{self.folder} is a file, expected a folder for checkpoints.")
        training = orbax_io.ocp().training
        self._writer = training.Checkpointer(
            self.folder,
            preservation_policy=training.preservation_policies.LatestN(keep),
            # What a killed process left half-written.
            cleanup_tmp_directories=True,
        )

    @property
    def latest(self) -> int | None:
        """The newest complete step."""
        newest = self._writer.latest
        return None if newest is None else int(newest.step)

    def save(self, step: int, state: TrainState, data: dict[str, Any]) -> None:
        """Begins to write a step; returns when the arrays are copied and may be donated. Steps that exist are left alone."""
        if self.latest is not None and self.latest >= step:
            return
        parts = {"state": orbax_io.named(state), "data": data, "meta": self._identity.to_json()}
        self._writer.save_checkpointables_async(step, parts, force=True)

    def restore(self, abstract: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The newest state, in the shardings of `abstract`, and what was saved as its `data`.

        Raises CheckpointError when there is none, or when it belongs to another model.
        """
        step = self.latest
        if step is None:
            raise CheckpointError(f"{self.folder} holds no complete checkpoint of a training run.")
        meta = self._writer.load_checkpointables(step, {"meta": None})["meta"]
        self._check(step, meta)
        try:
            found = self._writer.load_checkpointables(step, {"state": orbax_io.named(abstract), "data": None})
        except (ValueError, KeyError) as error:
            reason = str(error).strip().splitlines()[0]
            raise CheckpointError(f"step {step} of {self.folder} does not fit this run: {reason}") from error
        return orbax_io.like(abstract, found["state"]), found["data"]

    def wait(self) -> None:
        """Until everything is written."""
        self._writer.wait()

    def close(self) -> None:
        """Waits, and ends the writer's threads."""
        self._writer.close()

    def _check(self, step: int, meta: dict[str, Any]) -> None:
        ours = self._identity.to_json()
        for name in sorted({*ours["model"], *meta["model"]}):
            there, here = meta["model"].get(name), ours["model"].get(name)
            if there != here:
                raise CheckpointError(
                    f"step {step} of {self.folder} belongs to another model: its {name} is {there}, expected {here}."
                )
        if abs(meta["frozen"] - ours["frozen"]) > 1e-5 * abs(ours["frozen"]):
            raise CheckpointError(
                f"step {step} of {self.folder} was trained on top of other frozen weights than those that are loaded now."
            )
