"""How a run spreads over devices: a mesh of (data, fsdp, tensor), and one table that says where every parameter lies.

    data     copies of everything; only gradients are summed across
    fsdp     parameters, gradients and optimizer state are cut; each layer is gathered when it is used (Rajbhandari et al. 2020)
    tensor   heads and MLP columns are cut and stay cut (Shoeybi et al. 2019)

The batch is cut over data and fsdp together. Axes are Explicit: the sharding of an array is part of its type, and what the
compiler may not guess is an error while tracing. An axis that does not divide evenly is an error
too, and never silently replicated.
"""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding

from svlm_jax.errors import ConfigError
from svlm_jax.models import registry
from svlm_jax.models.config import ModelConfig
from svlm_jax.models.family import ShardingRow
from svlm_jax.models.flat_params import DOWN, TOWER, UP

P: TypeAlias = jax.P

AXES = ("data", "fsdp", "tensor")
ROWS = ("data", "fsdp")  # the mesh axes of a batch's samples

# Dotted path -> one logical axis for each dimension; None: never cut.
DECODER: tuple[ShardingRow, ...] = (
    (r"decoder\.embed\.weight", ("vocab", "embed")),
    (r"decoder\.head\.weight", ("embed", "vocab")),
    (r"decoder\.norm\.weight", (None,)),
    (r"decoder\.layers\.attn\.qkv\.weight", ("layer", "embed", "heads")),
    (r"decoder\.layers\.attn\.qkv\.bias", ("layer", "heads")),
    (r"decoder\.layers\.attn\.o\.weight", ("layer", "heads", "embed")),
    (r"decoder\.layers\.mlp\.gate_up\.weight", ("layer", "embed", "mlp")),
    (r"decoder\.layers\.mlp\.down\.weight", ("layer", "mlp", "embed")),
    (r"decoder\.layers\.(attn|mlp)_norm\.weight", ("layer", None)),
    (r"decoder\.layers\.attn\.[qk]_norm\.weight", ("layer", None)),
    (r"decoder\.layers\.mlp\.router\.weight", ("layer", "embed", None)),
    (r"decoder\.layers\.mlp\.experts\.gate_up", ("layer", "expert", "embed", None)),
    (r"decoder\.layers\.mlp\.experts\.down", ("layer", "expert", None, "embed")),
)
# Logical axis -> mesh axis. The tower is small: cut over fsdp where it lies if it is trained, whole where it is used.
MESH_AXIS: Mapping[str | None, str | None] = {
    None: None,
    "layer": None,
    "patch": None,
    "embed": "fsdp",
    "vision": "fsdp",
    "vocab": "tensor",
    "heads": "tensor",
    "mlp": "tensor",
    "expert": "tensor",
}


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis; one of them may be -1 for all that are left."""

    data: int = 1
    fsdp: int = -1
    tensor: int = 1

    def __post_init__(self) -> None:
        sizes = dataclasses.asdict(self)
        for name, size in sizes.items():
            if size < 1 and size != -1:
                raise ConfigError(f"mesh.{name} is {size}, expected a positive number of devices, or -1 for all that are left.")
        if list(sizes.values()).count(-1) > 1:
            raise ConfigError(f"mesh {self.text} has more than one axis of -1, expected at most one.")

    @property
    def text(self) -> str:
        return f"data={self.data}, fsdp={self.fsdp}, tensor={self.tensor}"


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh of all `devices` (default: every device of every process); ConfigError when it does not use each of them."""
    devices = jax.devices() if devices is None else devices
    sizes = [config.data, config.fsdp, config.tensor]
    known = math.prod(size for size in sizes if size > 0)
    if -1 in sizes:
        sizes[sizes.index(-1)] = max(len(devices) // known, 1)
    if math.prod(sizes) != len(devices):
        raise ConfigError(
            f"the mesh ({config.text}) needs {'a multiple of ' if -1 in dataclasses.astuple(config) else ''}{known} devices, "
            f"but there {'is 1 device' if len(devices) == 1 else f'are {len(devices)} devices'}."
        )
    return jax.make_mesh(tuple(sizes), AXES, axis_types=(AxisType.Explicit,) * len(AXES), devices=devices)


def table() -> tuple[ShardingRow, ...]:
    """The decoder's rows and those of every family's tower. Every parameter matches exactly one."""
    towers = dict.fromkeys(row for family in registry.FAMILIES.values() for row in family.sharding)
    return (*DECODER, *towers)


def logical_axes(path: str) -> tuple[str | None, ...]:
    """The row of the table for a parameter; ConfigError unless there is exactly one."""
    if path.endswith((DOWN, UP)):
        layer, inputs, outputs = logical_axes(path.removesuffix(DOWN).removesuffix(UP))
        return (layer, inputs, None) if path.endswith(DOWN) else (layer, None, outputs)
    found = [axes for pattern, axes in table() if re.fullmatch(pattern, path)]
    if len(found) != 1:
        raise ConfigError(f"the parameter {path} matches {len(found)} rows of the sharding table, expected exactly one.")
    return found[0]


def spec(path: str) -> P:
    """How a parameter is cut where it lies: parameter, gradient and optimizer state alike."""
    return P(*(MESH_AXIS[axis] for axis in logical_axes(path)))


def gathered(of: P) -> P:
    """How it is cut where it is used: no longer over fsdp."""
    return P(*(None if axis == "fsdp" else axis for axis in of))


def sharding(path: str, shape: Sequence[int], mesh: Mesh) -> NamedSharding:
    """Where a parameter of this shape lies; ConfigError when a dimension does not divide."""
    cut = spec(path)
    for size, axis, logical in zip(shape, cut, logical_axes(path), strict=True):
        if axis is not None and size % mesh.shape[axis]:
            raise ConfigError(
                f"{path} has a {logical} dimension of {size}, which does not divide by the {mesh.shape[axis]} devices "
                f"of the mesh axis {axis}."
            )
    return NamedSharding(mesh, cut)


def shardings(params: Mapping[str, Any], mesh: Mesh) -> dict[str, NamedSharding]:
    """`sharding` of every parameter of a run."""
    return {path: sharding(path, leaf.shape, mesh) for path, leaf in params.items()}


def frozen_shardings(params: Mapping[str, Any], mesh: Mesh) -> dict[str, NamedSharding]:
    """Of parameters that are not trained: a tower lies whole on every device.

    Cut, it would be gathered for every micro-batch before anything else could be computed, and take as much memory then.
    """
    whole = NamedSharding(mesh, P())
    return {path: whole if path.startswith(TOWER) else where for path, where in shardings(params, mesh).items()}


def check_model(config: ModelConfig, mesh: Mesh) -> None:
    """ConfigError for a family that cannot be trained, and when the mesh would cut through attention heads."""
    registry.require(config, "train")
    for name in ("num_heads", "num_kv_heads", "mlp_groups"):
        heads = getattr(config.text, name)
        if heads % mesh.shape["tensor"]:
            raise ConfigError(
                f"the mesh axis tensor has {mesh.shape['tensor']} devices, expected a divisor of {name} {heads} of the model."
            )


def batch_shardings(batch: Any, mesh: Mesh) -> Any:
    """Samples over data and fsdp, for every field of a batch."""
    rows = mesh.shape["data"] * mesh.shape["fsdp"]

    def leaf(array: Any) -> NamedSharding:
        if array.shape[0] % rows:
            raise ConfigError(
                f"a batch of {array.shape[0]} samples does not divide by the {rows} devices of the mesh axes data x fsdp."
            )
        return NamedSharding(mesh, P(ROWS, *(None for _ in array.shape[1:])))

    return jax.tree.map(leaf, batch)


def readers(mesh: Mesh) -> tuple[int, int]:
    """Which part of every batch this process reads, and how many parts there are.

    Processes whose devices differ only along `tensor` need, and read, the same samples.
    """
    rows = mesh.devices.reshape(-1, mesh.shape["tensor"])
    held: dict[int, set[int]] = {}
    for row, devices in enumerate(rows):
        for device in devices:
            held.setdefault(device.process_index, set()).add(row)
    parts = sorted({tuple(sorted(row)) for row in held.values()})
    if sum(len(part) for part in parts) != len(rows):
        raise ConfigError(
            "the processes of the mesh share some samples but not all, expected devices in the order of processes."
        )
    return parts.index(tuple(sorted(held[jax.process_index()]))), len(parts)


def place_batch(batch: Any, mesh: Mesh) -> Any:
    """This process's samples -> the global batch, on the devices. Every process brings the same number of samples."""
    parts = readers(mesh)[1]

    def leaf(array: np.ndarray) -> jax.Array:
        local = np.ascontiguousarray(array)
        total = (local.shape[0] * parts, *local.shape[1:])
        where = batch_shardings(jax.ShapeDtypeStruct(total, local.dtype), mesh)
        return jax.make_array_from_process_local_data(where, local, total)

    return jax.tree.map(leaf, batch)
