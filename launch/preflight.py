"""What can be known before a run: devices, speed between them, disk, data, and memory for every shape of batch.

python -m launch.preflight configs/sft_stage1.py                       on the machine that will train
python -m launch.preflight configs/sft_stage1.py --devices 8           memory only, on any machine, for 8 devices
"""

import argparse
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from svlm_jax.errors import SvlmError

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from svlm_jax.train.config import TrainConfig

GB = 1e9
PROBE_BYTES = 256_000_000


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the report; returns 0, or 2 when something given does not fit."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}.preflight", description="Check a training run before it starts."
    )
    parser.add_argument("config")
    parser.add_argument("changes", nargs="*", metavar="name=value")
    parser.add_argument("--devices", type=int, help="report memory only, as for so many devices")
    arguments = parser.parse_args(argv)
    console = Console(highlight=False, soft_wrap=True)
    if arguments.devices:
        # Before jax looks for devices.
        os.environ["JAX_PLATFORMS"] = "cpu"
        count = f"--xla_force_host_platform_device_count={arguments.devices}"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {count}".strip()
    try:
        _report(arguments, lambda line: console.print(line, markup=False))
    except SvlmError as error:
        Console(stderr=True, soft_wrap=True).print(f"svlm: {error}", markup=False, highlight=False)
        return 2
    return 0


def _report(arguments: argparse.Namespace, say: Callable[[str], None]) -> None:
    from svlm_jax import sharding
    from svlm_jax.train.config import load_config

    config = load_config(arguments.config, arguments.changes)
    mesh = sharding.make_mesh(config.mesh)
    if not arguments.devices:
        from . import cluster

        cluster.join()
        _devices(mesh, say)
        config.make_home()
        _disk(config.home, say)
        _data(config, mesh, say)
    _memory(config, mesh, say)


def _devices(mesh: "Mesh", say: Callable[[str], None]) -> None:
    import jax
    import jax.numpy as jnp

    kind = mesh.devices.flat[0].device_kind
    say(f"devices: {mesh.size} x {kind} of {jax.process_count()} processes, mesh {dict(mesh.shape)}")
    if mesh.size == 1:
        return
    axes = tuple(mesh.shape)
    size = PROBE_BYTES // 4 // mesh.size * mesh.size
    whole, cut = jax.NamedSharding(mesh, jax.P()), jax.NamedSharding(mesh, jax.P(axes))
    array = jax.jit(lambda: jnp.zeros(size), out_shardings=cut)()
    gather = jax.jit(lambda x: jax.reshard(x, jax.P()), out_shardings=whole)
    with jax.set_mesh(mesh):
        gather(array).block_until_ready()
        begin = time.perf_counter()
        for _ in range(5):
            gather(array).block_until_ready()
    seconds = (time.perf_counter() - begin) / 5
    moved = 4 * size * (mesh.size - 1) / mesh.size
    say(f"all-gather of {4 * size / GB:.2f} GB: {moved / seconds / GB:.1f} GB/s into each device")


def _disk(folder: Path, say: Callable[[str], None]) -> None:
    probe = folder / f".preflight-{os.getpid()}"
    block = os.urandom(PROBE_BYTES // 16)
    begin = time.perf_counter()
    try:
        with probe.open("wb") as file:
            for _ in range(16):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        speed = 16 * len(block) / (time.perf_counter() - begin)
    finally:
        probe.unlink(missing_ok=True)
    free = shutil.disk_usage(folder).free
    say(f"disk: {folder} has {free / GB:,.0f} GB free and takes {speed / GB:.2f} GB/s")


def _data(config: "TrainConfig", mesh: "Mesh", say: Callable[[str], None]) -> None:
    from svlm_jax.train import run

    source = run.Source.of(config.model)
    for name, data in (("training", config.data), ("evaluation", config.evaluation)):
        if data is None:
            continue
        sets = run.sets(data, source)
        with run.pipeline(data, sets, mesh) as pipeline:
            begin = time.perf_counter()
            next(pipeline)
            seconds = time.perf_counter() - begin
            count = sum(len(samples) for samples, _ in sets)
            say(f"{name} data: {count:,} samples, hash {pipeline.hash}; the first batch took {seconds:.1f} s")


def _memory(config: "TrainConfig", mesh: "Mesh", say: Callable[[str], None]) -> None:
    from svlm_jax.train import run
    from svlm_jax.train.memory import report
    from svlm_jax.train.optimizer import make_optimizer
    from svlm_jax.train.step import Step

    model = run.model_config(config.model)
    optimizer = make_optimizer(config.optimizer, max(config.loop.steps, 1))
    step = Step(model, config.compute, config.partition, optimizer, mesh)
    say("memory of each device, GB (on a CPU: an upper bound):")
    for usage in report(step, run.batch_shapes(config.data)):
        rows, tokens = usage.shape
        parts = f"state {usage.state / GB:.1f} + batch {usage.batch / GB:.2f} + working {usage.working / GB:.1f}"
        say(f"  {rows} x {tokens:,} tokens: {parts} = {usage.total / GB:.1f}")


if __name__ == "__main__":
    sys.exit(main())
