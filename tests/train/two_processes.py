"""One of two processes of a run whose newest checkpoint only the second one finds damaged; prints the step that it takes.

python -m tests.train.two_processes ADDRESS NUMBER FOLDER
"""

import contextlib
import shutil
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.experimental import multihost_utils

from svlm_jax import sharding
from svlm_jax.sharding import MeshConfig
from svlm_jax.train.checkpoints import Checkpoints, Identity, checksum
from svlm_jax.train.optimizer import OptimizerConfig, make_optimizer
from svlm_jax.train.state import Partition, init_state, place_flat
from tests.train import tiny

CONFIG = tiny.config(layers=1)


def main(address: str, number: int, folder: Path) -> None:
    jax.distributed.initialize(address, 2, number)
    mesh = sharding.make_mesh(MeshConfig(data=2), jax.devices())
    optimizer = make_optimizer(OptimizerConfig(), 8)
    flat = place_flat(tiny.params(CONFIG), mesh)
    state, frozen = init_state(flat, Partition(), optimizer, mesh, frozen_dtype="float32")
    identity = Identity(CONFIG, checksum(frozen), {})
    with contextlib.closing(Checkpoints(folder / "run", identity)) as checkpoints:
        for step in (3, 6):
            checkpoints.save(step, state, {"position": step})
        checkpoints.wait()
    if number == 0:  # each process has a folder of its own to read from, and one of them is damaged
        for reader in range(2):
            shutil.copytree(folder / "run", folder / f"seen{reader}")
        for file in (folder / "seen1" / "6" / "data").rglob("*"):
            if file.is_file():
                file.write_bytes(file.read_bytes()[:3])
    multihost_utils.sync_global_devices("copied")
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)
    with contextlib.closing(Checkpoints(folder / f"seen{number}", identity)) as checkpoints:
        restored, data = checkpoints.restore(abstract)
        assert bool(jnp.isfinite(jnp.asarray(restored.step)))
        sys.stdout.write(f"{data['position']}\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
