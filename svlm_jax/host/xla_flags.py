"""What XLA is asked for when a program of ours is compiled for a GPU: the one place.

    xla_gpu_experimental_force_split_k=1    products whose outputs are few are not cut along their inputs: the float32 parts of
                                            a cut are added by a second kernel, and keep the residual addition out of the first

How it is checked: `tests/aot/test_roofline.py` compiles the decode loop for an H200 and counts what it launches; a jaxlib that
does not know a flag refuses it there by name. That XLA runs the loop's body as CUDA graphs (`xla_gpu_enable_command_buffer`,
on by default) cannot be read from a program that is compiled without a GPU: it is decided by the driver that is found.
"""

import importlib.util
import os
from importlib import metadata

GPU: dict[str, str | int | bool] = {"xla_gpu_experimental_force_split_k": 1}
KNOWN_FROM = (0, 12, 0)  # the oldest jax that these were checked with


def set_gpu_flags() -> None:
    """Adds the flags to XLA_FLAGS, before JAX looks for devices; those that are named there already stay as they are.

    Does nothing without JAX's CUDA plugin, or where jaxlib is older than the flags: XLA ends the process for an unknown one.
    """
    version = tuple(int(part) for part in metadata.version("jax").split(".")[:3])
    if version < KNOWN_FROM or importlib.util.find_spec("jax_plugins") is None:
        return
    if not any(importlib.util.find_spec(f"jax_plugins.xla_cuda{version}") for version in (12, 13)):
        return
    given = os.environ.get("XLA_FLAGS", "")
    added = [f"--{name}={value}" for name, value in GPU.items() if name not in given]
    os.environ["XLA_FLAGS"] = " ".join([given, *added]).strip()
