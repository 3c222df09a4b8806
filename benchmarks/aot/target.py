"""Compiling for an accelerator on a machine that has none.

An H200 needs the CUDA plugin of the installed jaxlib and ptxas (`pip install -e .[aot]`), no GPU and no driver; TPUs need
libtpu (`pip install -e .[aot-tpu]`).
"""

import contextlib
import functools
import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, SingleDeviceSharding

TPUS = {"v5e": "v5e:2x2", "v6e": "v6e:2x2"}
TARGETS = ("h200", *TPUS)


def missing(target: str) -> str | None:
    """Why programs cannot be compiled for `target` here; None if they can."""
    assert target in TARGETS, target
    if target in TPUS:
        return None if _installed("libtpu") else "needs libtpu: pip install -e .[aot-tpu]"
    if not _installed("jax_plugins.xla_cuda13"):
        return "needs the CUDA plugin of this jaxlib: pip install -e .[aot]"
    if shutil.which("ptxas") is None and not _installed("nvidia.cu13"):
        return "needs ptxas: a CUDA 13 toolkit, or pip install -e .[aot]"
    return None


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of a package around it
        return False


def device(target: str):
    """A device of that kind, as a description."""
    return devices(target)[0]


@functools.cache
def devices(target: str, count: int = 4):
    """Devices of that kind, connected as in one machine, as descriptions; of TPUs there are four."""
    assert target in TARGETS, target
    if target in TPUS:
        os.environ["TPU_SKIP_MDS_QUERY"] = "1"  # do not ask the network what this machine is
        os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"  # there is no TPU that only one process could hold
        return topologies.get_topology_desc(platform="tpu", topology_name=TPUS[target]).devices
    description = (pathlib.Path(__file__).parent / "h200.txtpb").read_text()
    return topologies.get_topology_desc(platform="cuda", target_config=description, topology=f"1x1x{count}").devices


def on(target: str, shapes):
    """The same `jax.ShapeDtypeStruct`s, placed on the target."""
    sharding = SingleDeviceSharding(device(target))
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding), shapes)


def tracing(target: str):
    """The context to trace in: some TPU kernels ask which TPU they are for."""
    if target not in TPUS:
        return contextlib.nullcontext()
    return jax.sharding.use_abstract_mesh(Mesh(np.array([device(target)]), ("x",)).abstract_mesh)


def compile_for(target: str, function, *shapes):
    """The function compiled for the target."""
    with tracing(target):
        return jax.jit(function).lower(*on(target, shapes)).compile()


def run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m module ARGUMENTS` as a process of its own, because a compiler of models of 7B leaves gigabytes behind."""
    environment = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"}
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=pathlib.Path(__file__).parents[2],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
