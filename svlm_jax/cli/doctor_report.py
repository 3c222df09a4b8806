"""What this machine has, as plain data for scripts and as tables for people."""

import os
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any, Literal

import av
import av.codec.codec
import jax
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from pallas_kernels.dispatch import KERNELS, preferred
from svlm_jax.cache.number_formats import EightBit
from svlm_jax.host.devices import device_memory, host_memory
from svlm_jax.streaming.memory_plan import MemoryPlan

LIBRARIES = (
    "svlm-jax", "jax", "jaxlib", "flax", "numpy", "orbax-checkpoint", "safetensors", "tokenizers", "huggingface-hub", "av",
    "pillow", "rich",
)  # fmt: skip
DECODERS = ("h264", "hevc", "vp9", "av1", "mjpeg", "mpeg4")
ENCODERS = ("libx264", "mpeg4", "aac")


# What is asked of every card: formats of the decoder's weights and of the cache, None = bfloat16.
NUMBERS: Mapping[str, tuple[EightBit | None, EightBit | None]] = {
    "bfloat16": (None, None),
    "--quantize int8": ("int8", None),
    "--quantize int8 --cache-dtype int8": ("int8", "int8"),
}


def machine() -> dict[str, Any]:
    """Versions, devices with their memory in bytes (None = not known), codecs of the bundled FFmpeg, kernel implementations."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "host_memory_bytes": host_memory(),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "devices": [
            {"id": device.id, "platform": device.platform, "kind": device.device_kind, "memory_bytes": device_memory(device)}
            for device in jax.local_devices()
        ],
        "decoders": {name: _has_codec(name, "r") for name in DECODERS},
        "encoders": {name: _has_codec(name, "w") for name in ENCODERS},
        "kernels": {
            kernel: preferred(kernel, {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())) for kernel in KERNELS
        },
    }


def needs(plan: MemoryPlan, device_bytes: int | None) -> dict[str, Any]:
    """A memory plan as plain data; `fits` is None when the device's memory is not known."""
    return {
        "parameters_bytes": plan.parameters,
        "cache_bytes": plan.cache,
        "rotated_keys_bytes": plan.rotated,
        "working_bytes_estimate": plan.working,
        "total_bytes": plan.total,
        "device_bytes": device_bytes,
        "fits": None if device_bytes is None else plan.total <= device_bytes,
        "slots": sum(plan.slots.values()),
        "slots_by_role": dict(plan.slots),
    }


def show(report: Mapping[str, Any], console: Console) -> None:
    """Print a report as tables."""
    console.print(Group(*_sections(report)))


def _sections(report: Mapping[str, Any]) -> list[RenderableType]:
    sections: list[RenderableType] = [
        _pairs("Machine", {"system": report["system"], "memory": gib(report["host_memory_bytes"]), "python": report["python"]}),
        _pairs("Versions", {name: version or "not installed" for name, version in report["libraries"].items()}),
        _pairs("Devices", {f"{d['platform']}:{d['id']}": f"{d['kind']}, {gib(d['memory_bytes'])}" for d in report["devices"]}),
        _pairs("Video", {"decodes": _names(report["decoders"]), "encodes": _names(report["encoders"])}),
        _pairs("Kernels", report["kernels"]),
    ]
    if "model" in report:
        sections.extend(_model_sections(report["model"]))
    return sections


def _model_sections(model: Mapping[str, Any]) -> list[RenderableType]:
    memory = model["memory"]
    slots = {role: f"{count:,}" for role, count in memory["slots_by_role"].items()}
    sizes = {
        "weights": gib(memory["parameters_bytes"]),
        "keys and values": gib(memory["cache_bytes"]),
        "rotated keys": gib(memory["rotated_keys_bytes"]),
        "work of a second (estimate)": gib(memory["working_bytes_estimate"]),
        "total": gib(memory["total_bytes"]),
        f"available on {model['device']}": gib(memory["device_bytes"]),
    }
    verdict = {True: ("fits", "bold green"), False: ("does not fit", "bold red"), None: ("device memory not known", "yellow")}
    words, style = verdict[memory["fits"]]
    return [
        _pairs(f"Cache slots of {model['name']}", slots | {"total": f"{memory['slots']:,}"}),
        _pairs(f"Memory of {model['name']}, {_numbers(model)}", sizes),
        _pairs(f"Where {model['name']} fits", {name: ", ".join(cards) or "nowhere" for name, cards in model["cards"].items()}),
        Text(f"\n{model['name']}: {words}", style=style),
    ]


def _numbers(model: Mapping[str, Any]) -> str:
    """The number formats for people: bfloat16, int8 weights, int8 cache."""
    small = [f"{model[name]} {what}" for name, what in (("quantize", "weights"), ("cache_dtype", "cache")) if model[name]]
    return ", ".join([model["dtype"], *small])


def _pairs(title: str, rows: Mapping[str, str]) -> Table:
    table = Table(title=f"\n{title}", title_justify="left", title_style="bold", box=None, show_header=False, pad_edge=False)
    table.add_column(min_width=28)
    table.add_column()
    for name, value in rows.items():
        table.add_row(f"  {name}", value)
    return table


def _names(available: Mapping[str, bool]) -> str:
    return ", ".join(name if there else f"[dim]not {name}[/dim]" for name, there in available.items())


def gib(count: int | None) -> str:
    """Bytes for people."""
    if count is None:
        return "memory not known"
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 / 100 else f"{count / 2**20:.2f} MiB"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _has_codec(name: str, mode: Literal["r", "w"]) -> bool:
    try:
        av.codec.Codec(name, mode)
    except av.codec.codec.UnknownCodecError:
        return False
    return True
