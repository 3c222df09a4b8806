"""What a measurement ran on: recorded beside every result."""

import importlib.metadata
import os
import pathlib
import platform

import jax

PACKAGES = ("svlm-jax", "jax", "jaxlib", "flax", "numpy", "av", "torch", "transformers")


def describe() -> dict[str, object]:
    """Processor, cores, accelerators, and versions of everything that matters for speed."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "devices": sorted({device.device_kind for device in jax.devices()}),
        "python": platform.python_version(),
        "system": platform.system(),
        **versions,
    }


def _processor() -> str:
    info = pathlib.Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
