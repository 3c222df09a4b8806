"""What differs between the versions of jax, and between GPUs, that the kernels meet."""

import importlib
from typing import Any

import jax

MOSAIC_GPU = (0, 11, 1)  # the first jax whose Mosaic GPU finds layouts itself and can be interpreted on a CPU


def mosaic_gpu_missing() -> str | None:
    """Why this jax cannot run or compile the Mosaic GPU kernels; None if it can."""
    if jax.__version_info__ >= MOSAIC_GPU:
        return None
    wanted = ".".join(map(str, MOSAIC_GPU))
    return f"Mosaic GPU kernels need jax {wanted} or newer (Python 3.12), this is jax {jax.__version__}"


def not_hopper() -> str | None:
    """Why the GPU of this process cannot run kernels for Hopper; None if it can, or if it has none: it compiles for one."""
    if jax.default_backend() != "gpu":
        return None
    capability = str(getattr(jax.devices()[0], "compute_capability", "unknown"))
    return None if capability.startswith("9.") else f"the kernels are for Hopper (sm_90a), this GPU has {capability}"


def cudnn_missing() -> str | None:
    """Why cuDNN's attention cannot be had in this process; None if it can. JAX asks the GPU at hand, so there must be one."""
    if jax.default_backend() != "gpu":
        return "cuDNN's attention asks the GPU at hand what it can do, and there is none"
    cudnn: Any = importlib.import_module("jax._src.cudnn.fused_attention_stablehlo")
    try:
        cudnn.check_cudnn_version()
    except RuntimeError as error:
        return str(error).rstrip(".")
    return None if cudnn.check_compute_capability("8.0") else "cuDNN's attention needs an NVIDIA GPU from Ampere (8.0) on"


def gpu_interpreter(*, detect_races: bool = False) -> Any:
    """What makes a Mosaic GPU kernel run on a CPU, with its warpgroups, barriers and shared memory simulated."""
    mosaic_gpu: Any = importlib.import_module("jax.experimental.pallas.mosaic_gpu")
    return mosaic_gpu.InterpretGPUParams(detect_races=detect_races)
