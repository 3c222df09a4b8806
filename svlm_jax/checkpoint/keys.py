"""Hugging Face tensor names and our parameter paths side by side, used to read and to write (`models.names`).

Hub tensors with one path of ours are parts of one weight, in the order of the family's names.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import numpy as np

from svlm_jax.models import registry
from svlm_jax.models.config import ModelConfig
from svlm_jax.models.functional import abstract_params
from svlm_jax.models.names import Transform

Path: TypeAlias = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Part:
    """Where a hub tensor lies in a fused weight: `width` columns from `start` on, in each of `groups` groups of `total`."""

    groups: int
    start: int
    width: int
    total: int


@dataclasses.dataclass(frozen=True)
class Row:
    """One tensor: its hub name and shape, and the path and shape of our parameter, of which it may be a part."""

    name: str
    path: Path
    transform: Transform
    hub_shape: tuple[int, ...]
    shape: tuple[int, ...]
    part: Part | None

    @property
    def hub_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes that the tensor may have: as published, and for experts as transformers 5 writes them."""
        published = self.hub_shape
        return (published, (published[0], published[2], published[1])) if self.transform == "experts" else (published,)

    @property
    def size(self) -> int:
        """Numbers in the tensor."""
        return math.prod(self.hub_shape)


def rows(cfg: ModelConfig) -> list[Row]:
    """Every tensor that a checkpoint of this model holds; the parts of a fused parameter stand one after the other."""
    patterns: dict[str, list[tuple[str, Transform]]] = {}
    for hub, ours, transform in registry.record(cfg).names.rows:
        patterns.setdefault(ours, []).append((hub, transform))
    found = []
    for keys, leaf in jax.tree_util.tree_flatten_with_path(abstract_params(cfg))[0]:
        path = tuple(key.key for key in keys)
        number = next((part for part in path if part.isdecimal()), "")
        ours = ".".join("{i}" if part.isdecimal() else part for part in path)
        sources = patterns.get(ours) or patterns[f"{ours.rpartition('.')[0]}.*"]
        for (hub, transform), part in zip(sources, _parts(cfg, path, len(sources), leaf.shape[-1]), strict=True):
            if len(leaf.shape) == 1:
                transform = "same"
            name = hub.replace("{i}", number).replace("*", path[-1])
            shape = leaf.shape if part is None else (*leaf.shape[:-1], part.groups * part.width)
            found.append(Row(name, path, transform, _hub_shape(cfg, shape, transform), leaf.shape, part))
    return found


def _parts(cfg: ModelConfig, path: Path, count: int, columns: int) -> list[Part | None]:
    """How `count` hub tensors share the columns of the parameter at `path`."""
    if count == 1:
        return [None]
    text = cfg.text
    if "qkv" in path:
        groups, shared = text.num_kv_heads, text.num_heads // text.num_kv_heads
        widths = [shared * text.head_dim, text.head_dim, text.head_dim]
    else:
        groups = text.mlp_groups if path[0] == "decoder" else 1
        widths = [columns // groups // count] * count
    return [Part(groups, sum(widths[:i]), width, sum(widths)) for i, width in enumerate(widths)]


def _hub_shape(cfg: ModelConfig, shape: tuple[int, ...], transform: Transform) -> tuple[int, ...]:
    if transform in ("same", "experts"):
        return shape
    if transform == "transpose":
        return shape[::-1]
    return (shape[1], *cfg.vision.patch_shape)


def from_hub(
    tensors: Sequence[np.ndarray], of: Sequence[Row], dtype: Any, index: tuple[slice, ...] | None = None
) -> np.ndarray:
    """Our parameter, or what is at `index` of it, from its hub tensors: one copy, in our layout and `dtype` (None: theirs)."""
    shape = of[0].shape
    *lead, last = (slice(None),) * len(shape) if index is None else index
    views = [_ours(tensor, row) for tensor, row in zip(tensors, of, strict=True)]
    if of[0].part is None:
        return np.array(views[0][(*lead, last)], dtype=dtype, order="C")
    begin, end, _ = last.indices(shape[-1])
    total = of[0].part.total
    first, stop = begin // total, -(-end // total)  # groups
    wanted: list[np.ndarray] = []
    for view, row in zip(views, of, strict=True):
        assert row.part is not None
        wanted.append(view.reshape(*view.shape[:-1], row.part.groups, row.part.width)[(*lead, slice(first, stop))])
    out = np.empty((*wanted[0].shape[:-1], total), views[0].dtype if dtype is None else dtype)
    np.concatenate(wanted, axis=-1, out=out, casting="unsafe")
    out = out.reshape(*out.shape[:-2], -1)
    return np.ascontiguousarray(out[..., begin - first * total : end - first * total])


def _ours(tensor: np.ndarray, row: Row) -> np.ndarray:
    """A view of a hub tensor in our layout."""
    if row.transform == "transpose":
        return tensor.T
    if row.transform == "experts" and tensor.shape != row.hub_shape:
        return tensor.swapaxes(1, 2)
    return tensor.reshape(tensor.shape[0], -1).T if row.transform == "patches" else tensor


def to_hub(param: np.ndarray, row: Row) -> np.ndarray:
    """The hub tensor of a row, contiguous, from our parameter."""
    if (part := row.part) is not None:
        columns = param.reshape(*param.shape[:-1], part.groups, part.total)[..., part.start : part.start + part.width]
        param = columns.reshape(*param.shape[:-1], -1)
    return np.ascontiguousarray(param if row.transform in ("same", "experts") else param.T).reshape(row.hub_shape)
