"""Kernels on several devices: every device computes its own streams and key heads, nothing is sent between them.

XLA cannot cut a Pallas kernel by itself, so the cut is a `shard_map`. A derivative that a kernel brings is inside it: each
device differentiates its own part, and no sum over devices is added.
"""

import inspect
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, PartitionSpec

# Which dimension of each array is streams (b) or heads (h), query heads and key heads alike; the outputs last.
_LAYOUTS = {
    "cache_attention": {
        "query": "b.h.", "keys": "bh..", "values": "bh..", "query_index": "b.", "kv_index": "b.", "rope": "b..",
        "out": "b.h.", "out_lse": "bh.",
    },
    "flash_attention": {
        "query": "b.h.", "keys": "b.h.", "values": "b.h.", "order": "b.", "segment_ids": "b.",
        "out": "b.h.", "out_lse": "bh.",
    },
    "pooled_scores": {
        "query": "b.h.", "keys": "bh..", "query_index": "b.", "kv_index": "b.", "rope": "b..", "lse": "bh.",
        "out": "bh.",
    },
}  # fmt: skip

Kernel = Callable[..., Any]


def sharded(
    kernel: Callable[..., Any], mesh: Mesh, *, batch: str | None = None, heads: str | None = None
) -> Callable[..., Any]:
    """`cache_attention`, `flash_attention` or `pooled_scores` with streams cut over one mesh axis and heads over another.

    Takes and returns what the kernel does. ValueError when a dimension does not divide by its axis.
    """
    layout = _LAYOUTS[kernel.__name__]

    def spec(letters: str) -> PartitionSpec:
        return PartitionSpec(*({"b": batch, "h": heads, ".": None}[letter] for letter in letters))

    def call(*arrays: Any, **options: Any) -> Any:
        given = inspect.signature(kernel).bind(*arrays, **options).arguments
        cut = {name: x for name, x in given.items() if name in layout and x is not None}
        fixed = {name: x for name, x in given.items() if name not in cut}
        for name, x in cut.items():
            _check(kernel.__name__, name, layout[name], x, {"b": batch, "h": heads}, mesh)
        specs = {name: jax.tree.map(lambda _, name=name: spec(layout[name]), x) for name, x in cut.items()}
        out: Any = spec(layout["out"])
        if fixed.get("return_lse"):
            out = out, spec(layout["out_lse"])
        run = jax.shard_map(lambda own: kernel(**own, **fixed), mesh=mesh, in_specs=(specs,), out_specs=out, check_vma=False)
        return run(cut)

    return call


def _check(kernel: str, name: str, letters: str, arrays: Any, axes: dict[str, str | None], mesh: Mesh) -> None:
    for x in jax.tree.leaves(arrays):
        for size, letter in zip(x.shape, letters, strict=True):
            axis = axes.get(letter)
            if axis is not None and size % mesh.shape[axis]:
                what = {"b": "streams", "h": "heads"}[letter]
                raise ValueError(
                    f"{kernel}: the {size} {what} of {name} do not divide over the {mesh.shape[axis]} devices of axis {axis!r}."
                )
