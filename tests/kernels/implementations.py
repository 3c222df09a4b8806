"""The implementations that the suites run, each with its dtype and tolerance, and why one cannot run here.

`interpret` is the TPU kernel as XLA operations; `races` is the same in the simulator of a TPU, which fills fresh memory with
NaN and looks for races. `gpu interpreter` simulates the threads and barriers of the GPU kernel, `gpu races` looks for races
as well. `splash interpreter` and `splash races` are JAX's kernel for TPUs in the same ways. `mosaic_gpu`, `mosaic_tpu`,
`splash` and `cudnn` need the device.
"""

import dataclasses
import functools
import importlib
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels import compat

SIMULATORS = ("races", "splash interpreter", "splash races", "gpu interpreter", "gpu races")
ATOL = {"float32": 5e-6, "bfloat16": 8e-3}  # of outputs of order 1; a bfloat16 holds 8 bits


@dataclasses.dataclass(frozen=True)
class Implementation:
    """Runs a kernel's public function, or the GPU kernel's own function in its interpreter."""

    kernel: str
    name: str

    @property
    def dtype(self):
        return jnp.bfloat16 if "gpu" in self.name or self.name == "cudnn" else jnp.float32

    @property
    def atol(self) -> float:
        return ATOL[jnp.dtype(self.dtype).name]

    def __call__(self, *arrays, **options):
        """Compiled; the same options and shapes compile once."""
        return np_tree(_compiled(self.kernel, self.name, tuple(sorted(options.items())))(*arrays))


def np_tree(tree):
    """Arrays as numpy, bfloat16 as float32."""
    return jax.tree.map(lambda x: np.asarray(x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x), tree)


@functools.cache
def _compiled(kernel: str, name: str, options: tuple):
    api = getattr(importlib.import_module(f"pallas_kernels.{kernel}"), kernel)
    if name in SIMULATORS:
        module, interpret = simulator(kernel, name)
        return jax.jit(functools.partial(getattr(module, kernel), interpret=interpret, **dict(options)))
    return jax.jit(functools.partial(api, implementation=name, **dict(options)))


def simulator(kernel: str, name: str):
    """The module of a kernel, and what makes its functions run in a simulator."""
    from jax.experimental.pallas import tpu as pltpu

    if "gpu" in name:
        file, interpret = "mosaic_gpu", compat.gpu_interpreter(detect_races="races" in name)
    else:
        file = "splash" if "splash" in name else "mosaic_tpu"
        interpret = pltpu.InterpretParams(detect_races=True) if "races" in name else True
    return importlib.import_module(f"pallas_kernels.{kernel}.{file}"), interpret


def race_found(name: str) -> bool:
    """Whether the last kernel in a simulator had a race."""
    if "gpu" not in name:
        from jax._src.pallas.mosaic.interpret import interpret_pallas_call as simulated
    else:
        from jax._src.pallas.mosaic_gpu.interpret import gpu_callbacks as simulated
    races = simulated.get_races() if hasattr(simulated, "get_races") else simulated.races
    return races.races_found


def implementations(kernel: str, *names: str):
    """Parameters for a fixture, all but the simulators of a TPU if not named, skipped where they cannot run."""
    return [
        pytest.param(Implementation(kernel, name), id=name, marks=pytest.mark.skipif(bool(reason), reason=str(reason)))
        for name in names or ("xla", "interpret", "gpu interpreter", "mosaic_gpu", "mosaic_tpu")
        for reason in [why_not(kernel, name)]
    ]


def why_not(kernel: str, name: str) -> str | None:
    """Why an implementation cannot run on this machine; None if it can."""
    if "gpu" in name:
        if importlib.util.find_spec(f"pallas_kernels.{kernel}.mosaic_gpu") is None:
            return f"{kernel} has no GPU kernel"
        if reason := compat.mosaic_gpu_missing():
            return reason
    if name == "mosaic_gpu":
        return compat.not_hopper() if jax.default_backend() == "gpu" else "needs a Hopper GPU"
    if name in ("mosaic_tpu", "splash") and jax.default_backend() != "tpu":
        return "needs a TPU"
    return compat.cudnn_missing() if name == "cudnn" else None
