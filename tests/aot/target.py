"""Compiling for an accelerator on a machine that has none.

Needs the CUDA plugin of the installed jaxlib (`pip install -e .[aot]`), and ptxas; no GPU, no driver.
"""

import functools
import importlib.util
import pathlib
import shutil

import jax
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding


def missing(target: str) -> str | None:
    """Why programs cannot be compiled for `target` here; None if they can."""
    assert target == "h200"
    if importlib.util.find_spec("jax_plugins.xla_cuda13") is None:
        return "needs the CUDA plugin of this jaxlib: pip install -e .[aot]"
    if shutil.which("ptxas") is None and importlib.util.find_spec("nvidia.cu13") is None:
        return "needs ptxas: a CUDA 13 toolkit, or pip install -e .[aot]"
    return None


@functools.cache
def device(target: str):
    """A device of that kind, as a description."""
    assert target == "h200"
    description = (pathlib.Path(__file__).parent / "h200.txtpb").read_text()
    return topologies.get_topology_desc(platform="cuda", target_config=description, topology="1x1x1").devices[0]


def on(target: str, shapes):
    """The same `jax.ShapeDtypeStruct`s, placed on the target."""
    sharding = SingleDeviceSharding(device(target))
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding), shapes)
