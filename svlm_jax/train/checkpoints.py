"""Checkpoints of a run: everything that the next step depends on, written while training goes on.

    <folder>/<step>/state   master weights and optimizer state, by Orbax, each process its own part
    <folder>/<step>/data    where the data goes on (one position for all hosts), and the hash of the data
    <folder>/<step>/meta    the model, the configuration, a check sum of the frozen weights, and check sums of all the rest

A step's folder gets its name only when it is complete, so a process may die at any time. Random numbers need no state: the
data draws them from seed and position, and a step draws none.
"""

import contextlib
import dataclasses
import hashlib
import json
import logging
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from svlm_jax.checkpoint import orbax_io
from svlm_jax.errors import CheckpointError, OutputError
from svlm_jax.host.files import one_sentence, system_error, writing
from svlm_jax.models import registry
from svlm_jax.models.config import ModelConfig
from svlm_jax.models.flat_params import Flat
from svlm_jax.train.state import TrainState

logger = logging.getLogger(__name__)


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


def bits(tree: Any) -> str:
    """A check sum of all bits of arrays of 4 bytes a number: exact, and the same on every mesh."""

    def total(tree: Any) -> jax.Array:
        words = (jax.lax.bitcast_convert_type(leaf, jnp.uint32) for leaf in jax.tree.leaves(tree))
        return sum((jnp.sum(part, dtype=jnp.uint32) for part in words), jnp.zeros((), jnp.uint32))

    return f"{int(jax.jit(total)(tree)):08x}"


def digest(*parts: Any) -> str:
    """A check sum of what JSON holds."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class Altered(Exception):
    """What was read is not what was saved, though it looks like it."""


def newest_step(folder: Path) -> int | None:
    """The step of the newest complete checkpoint in a run's folder, None without one; nothing is read."""
    return max((int(path.name) for path in folder.glob("[0-9]*") if path.name.isdecimal()), default=None)


class Checkpoints:
    """The checkpoints in a folder. Every process calls every method, with the same steps.

    Args:
      keep: how many of the newest stay.
    """

    def __init__(self, folder: str | Path, identity: Identity, *, keep: int = 3) -> None:
        self._identity = identity
        self._damaged: list[int] = []
        self.folder = Path(folder).expanduser().absolute()
        if self.folder.exists() and not self.folder.is_dir():
            raise CheckpointError(f"{self.folder} is a file, expected a folder for checkpoints.")
        training = orbax_io.ocp().training
        self._silence = contextlib.ExitStack()
        self._silence.enter_context(_orbax_silent())
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
        """Begins to write a step; returns when the arrays are copied and may be donated. Steps that exist are left alone.

        Raises OutputError when this step, or the one before, cannot be written.
        """
        self._put_aside()
        if self.latest is not None and self.latest >= step:
            return
        identity = self._identity.to_json()
        sums = {"bits": bits(state), "digest": digest(identity, data)}
        parts = {"state": orbax_io.named(state), "data": data, "meta": identity | sums}
        with self._writing():
            self._writer.save_checkpointables_async(step, parts, force=True)

    def restore(self, abstract: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The newest state that can be read, in the shardings of `abstract`, and what was saved as its `data`.

        A damaged step is named in a warning, and the one before it is taken: by all processes, whichever of them finds the
        damage. Raises CheckpointError, in all, when there is none, or when it belongs to another model.
        """
        steps = _as_first(sorted((int(found.step) for found in self._writer.checkpoints), reverse=True))
        if not steps:
            raise CheckpointError(f"{self.folder} holds no complete checkpoint of a training run.")
        for step in steps:
            found, reason = None, ""
            refused: CheckpointError | None = None
            try:
                found = self._load(step, abstract)
            except CheckpointError as error:
                refused = error
            except Altered:
                reason = "a bit of it has changed"
            except Exception:  # of any kind: it depends on where the damage is, and fills pages
                reason = "it cannot be read"
            if not _everywhere(refused is None):
                raise refused or CheckpointError(f"step {step} of {self.folder} does not fit the run of another process.")
            if _everywhere(found is not None) and found is not None:
                return orbax_io.like(abstract, found["state"]), found["data"]
            self._damaged.append(step)
            logger.warning(
                "step %d of %s is damaged and is not used (%s)",
                step,
                self.folder,
                reason or "in another process it cannot be read",
            )
        raise CheckpointError(f"{self.folder}: none of its steps ({', '.join(map(str, steps))}) can be read.")

    def wait(self) -> None:
        """Until everything is written. Raises OutputError when it cannot be."""
        with self._writing():
            self._writer.wait()

    def close(self) -> None:
        """Waits, and ends the writer's threads."""
        with self._silence, self._writing():
            self._writer.close()

    def _load(self, step: int, abstract: TrainState) -> dict[str, Any]:
        about = self._writer.load_checkpointables(step, {"meta": None, "data": None})
        meta = about["meta"]
        if digest({name: meta[name] for name in meta if name not in ("bits", "digest")}, about["data"]) != meta["digest"]:
            raise Altered
        self._check(step, meta)
        wanted = orbax_io.named(abstract)
        stored = self._writer.checkpointables_metadata(step).metadata["state"]
        differing = sorted(orbax_io.paths(stored) ^ orbax_io.paths(wanted))
        if differing:
            raise CheckpointError(f"step {step} of {self.folder} does not fit this run: {differing[0]} is not in both.")
        found = self._writer.load_checkpointables(step, {"state": wanted})
        if bits(found["state"]) != meta["bits"]:
            raise Altered
        return {**found, "data": about["data"]}

    def _put_aside(self) -> None:
        """Damaged steps leave the folder, where their numbers are wanted again, and stay beside it."""
        if not self._damaged:
            return
        if jax.process_index() == 0:
            with writing(self.folder):
                for step in self._damaged:
                    aside = self.folder.with_name(f"{self.folder.name}-damaged")
                    aside.mkdir(exist_ok=True)
                    (self.folder / str(step)).replace(aside / f"{step}-{secrets.token_hex(4)}")
        _everywhere(True)
        self._damaged = []
        self._writer.reload()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turns what Orbax says in a hundred lines into a sentence."""
        try:
            yield
        except Exception as error:
            why = one_sentence(system_error(error) or error)
            raise OutputError(f"checkpoints cannot be written to {self.folder}: {why}.") from error

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


@contextlib.contextmanager
def _orbax_silent() -> Iterator[None]:
    """What Orbax logs of damaged steps and full disks fills pages; here it is a sentence."""
    log = logging.getLogger("absl")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)


def _everywhere(here: bool) -> bool:
    """Whether it is so in all processes, each of which calls this."""
    if jax.process_count() == 1:
        return here
    return bool(multihost_utils.process_allgather(np.array(here)).all())


def _as_first(steps: list[int]) -> list[int]:
    """What the first process has, in all processes: a shared folder need not look the same to each of them at once."""
    if jax.process_count() == 1:
        return steps
    count = int(multihost_utils.broadcast_one_to_all(np.array(len(steps))))
    mine = np.resize(np.array(steps or [0]), count)
    return [int(step) for step in multihost_utils.broadcast_one_to_all(mine)] if count else []
