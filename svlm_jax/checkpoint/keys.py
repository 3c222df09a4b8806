"""The one table of Hugging Face tensor names and our parameter paths, used to read and to write.

A row is (HF name, our path, transform). `{i}` is a layer number; `*` stands for the leaves `weight` and, where our
parameters have it, `bias`. Hub tensors with one path of ours are parts of one weight, in that order. HF names are those of
the published files: `model.layers.…` and `visual.…` of Qwen's models, `language_model.model.layers.…` and `vision_tower.…`
of LLaVA's.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal

import jax
import numpy as np

from svlm_jax.models.config import Family, ModelConfig, SiglipConfig
from svlm_jax.models.functional import abstract_params

# same: as it is. transpose: (out, in) -> (in, out). patches: a convolution (E, channels, [t,] y, x) -> (pixels, E).
Transform = Literal["same", "transpose", "patches"]
Path = tuple[str, ...]

_TEXT: list[tuple[str, str, Transform]] = [
    ("model.embed_tokens.*", "decoder.embed.*", "same"),
    ("model.layers.{i}.input_layernorm.*", "decoder.layers.{i}.attn_norm.*", "same"),
    ("model.layers.{i}.self_attn.q_proj.*", "decoder.layers.{i}.attn.qkv.*", "transpose"),
    ("model.layers.{i}.self_attn.k_proj.*", "decoder.layers.{i}.attn.qkv.*", "transpose"),
    ("model.layers.{i}.self_attn.v_proj.*", "decoder.layers.{i}.attn.qkv.*", "transpose"),
    ("model.layers.{i}.self_attn.o_proj.*", "decoder.layers.{i}.attn.o.*", "transpose"),
    ("model.layers.{i}.post_attention_layernorm.*", "decoder.layers.{i}.mlp_norm.*", "same"),
    ("model.layers.{i}.mlp.gate_proj.*", "decoder.layers.{i}.mlp.gate_up.*", "transpose"),
    ("model.layers.{i}.mlp.up_proj.*", "decoder.layers.{i}.mlp.gate_up.*", "transpose"),
    ("model.layers.{i}.mlp.down_proj.*", "decoder.layers.{i}.mlp.down.*", "transpose"),
    ("model.norm.*", "decoder.norm.*", "same"),
    ("lm_head.*", "decoder.head.*", "transpose"),
]
_QWEN_VISION: list[tuple[str, str, Transform]] = [
    ("visual.patch_embed.proj.*", "visual.patch_embed.*", "patches"),
    ("visual.blocks.{i}.norm1.*", "visual.blocks.{i}.norm1.*", "same"),
    ("visual.blocks.{i}.norm2.*", "visual.blocks.{i}.norm2.*", "same"),
    ("visual.blocks.{i}.attn.qkv.*", "visual.blocks.{i}.attn.qkv.*", "transpose"),
    ("visual.blocks.{i}.attn.proj.*", "visual.blocks.{i}.attn.proj.*", "transpose"),
    ("visual.merger.ln_q.*", "visual.merger.norm.*", "same"),
    ("visual.merger.mlp.0.*", "visual.merger.mlp.fc1.*", "transpose"),
    ("visual.merger.mlp.2.*", "visual.merger.mlp.fc2.*", "transpose"),
]
_QWEN2_5_MLP: list[tuple[str, str, Transform]] = [
    ("visual.blocks.{i}.mlp.gate_proj.*", "visual.blocks.{i}.mlp.gate_up.*", "transpose"),
    ("visual.blocks.{i}.mlp.up_proj.*", "visual.blocks.{i}.mlp.gate_up.*", "transpose"),
    ("visual.blocks.{i}.mlp.down_proj.*", "visual.blocks.{i}.mlp.down.*", "transpose"),
]
_QWEN2_MLP: list[tuple[str, str, Transform]] = [
    ("visual.blocks.{i}.mlp.fc1.*", "visual.blocks.{i}.mlp.fc1.*", "transpose"),
    ("visual.blocks.{i}.mlp.fc2.*", "visual.blocks.{i}.mlp.fc2.*", "transpose"),
]
_SIGLIP = "vision_tower.vision_model"
_LLAVA: list[tuple[str, str, Transform]] = [
    *((f"language_model.{hub}", ours, transform) for hub, ours, transform in _TEXT),
    (f"{_SIGLIP}.embeddings.patch_embedding.*", "visual.patch_embed.*", "patches"),
    (f"{_SIGLIP}.embeddings.position_embedding.*", "visual.position.*", "same"),
    (f"{_SIGLIP}.encoder.layers.{{i}}.layer_norm1.*", "visual.blocks.{i}.norm1.*", "same"),
    (f"{_SIGLIP}.encoder.layers.{{i}}.layer_norm2.*", "visual.blocks.{i}.norm2.*", "same"),
    (f"{_SIGLIP}.encoder.layers.{{i}}.self_attn.q_proj.*", "visual.blocks.{i}.attn.q.*", "transpose"),
    (f"{_SIGLIP}.encoder.layers.{{i}}.self_attn.k_proj.*", "visual.blocks.{i}.attn.k.*", "transpose"),
    (f"{_SIGLIP}.encoder.layers.{{i}}.self_attn.v_proj.*", "visual.blocks.{i}.attn.v.*", "transpose"),
    (f"{_SIGLIP}.encoder.layers.{{i}}.self_attn.out_proj.*", "visual.blocks.{i}.attn.o.*", "transpose"),
    (f"{_SIGLIP}.encoder.layers.{{i}}.mlp.fc1.*", "visual.blocks.{i}.mlp.fc1.*", "transpose"),
    (f"{_SIGLIP}.encoder.layers.{{i}}.mlp.fc2.*", "visual.blocks.{i}.mlp.fc2.*", "transpose"),
    (f"{_SIGLIP}.post_layernorm.*", "visual.post_norm.*", "same"),
    ("multi_modal_projector.linear_1.*", "projector.fc1.*", "transpose"),
    ("multi_modal_projector.linear_2.*", "projector.fc2.*", "transpose"),
    ("image_newline", "projector.newline", "same"),
]
_TABLES: dict[Family, list[tuple[str, str, Transform]]] = {
    "qwen2_5_vl": [*_TEXT, *_QWEN_VISION, *_QWEN2_5_MLP],
    "qwen2_vl": [*_TEXT, *_QWEN_VISION, *_QWEN2_MLP],
    "llava_onevision": _LLAVA,
}
# Newer files nest both halves under `model.`; what transformers 5 writes has no `vision_model`. The first that fits counts.
_NEWER_QWEN = {"model.language_model.": "model.", "model.visual.": "visual."}
_NEWER_LLAVA = {
    "model.language_model.": "language_model.model.",
    "lm_head.": "language_model.lm_head.",
    "model.vision_tower.vision_model.": f"{_SIGLIP}.",
    "model.vision_tower.": f"{_SIGLIP}.",
    f"{_SIGLIP}.": f"{_SIGLIP}.",
    "vision_tower.": f"{_SIGLIP}.",
    "model.multi_modal_projector.": "multi_modal_projector.",
    "model.image_newline": "image_newline",
}
_NEWER_PREFIXES: dict[Family, dict[str, str]] = {
    "qwen2_5_vl": _NEWER_QWEN,
    "qwen2_vl": _NEWER_QWEN,
    "llava_onevision": _NEWER_LLAVA,
}


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
    def size(self) -> int:
        """Numbers in the tensor."""
        return math.prod(self.hub_shape)


def rows(cfg: ModelConfig) -> list[Row]:
    """Every tensor that a checkpoint of this model holds; the parts of a fused parameter stand one after the other."""
    patterns: dict[str, list[tuple[str, Transform]]] = {}
    for hub, ours, transform in _TABLES[cfg.family]:
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


def hub_name(name: str, family: Family) -> str:
    """A tensor name as newer files spell it -> as the table does."""
    for newer, older in _NEWER_PREFIXES[family].items():
        if name.startswith(newer):
            return older + name[len(newer) :]
    return name


def head_name(family: Family) -> str:
    """What the table calls the output head."""
    return next(hub for hub, ours, _ in _TABLES[family] if ours == "decoder.head.*").replace("*", "weight")


def _hub_shape(cfg: ModelConfig, shape: tuple[int, ...], transform: Transform) -> tuple[int, ...]:
    if transform == "same":
        return shape
    if transform == "transpose":
        return shape[::-1]
    v = cfg.vision
    if isinstance(v, SiglipConfig):
        return (v.hidden_size, v.in_channels, v.patch_size, v.patch_size)
    return (v.hidden_size, v.in_channels, v.temporal_patch_size, v.patch_size, v.patch_size)


def from_hub(
    tensors: Sequence[np.ndarray], of: Sequence[Row], dtype: Any, index: tuple[slice, ...] | None = None
) -> np.ndarray:
    """Our parameter, or what is at `index` of it, from its hub tensors: one copy, in our layout and `dtype` (None: theirs)."""
    shape = of[0].shape
    *lead, last = (slice(None),) * len(shape) if index is None else index
    views = [_ours(tensor, row.transform) for tensor, row in zip(tensors, of, strict=True)]
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


def _ours(tensor: np.ndarray, transform: Transform) -> np.ndarray:
    """A view of a hub tensor in our layout."""
    if transform == "transpose":
        return tensor.T
    return tensor.reshape(tensor.shape[0], -1).T if transform == "patches" else tensor


def to_hub(param: np.ndarray, row: Row) -> np.ndarray:
    """The hub tensor of a row, contiguous, from our parameter."""
    if (part := row.part) is not None:
        columns = param.reshape(*param.shape[:-1], part.groups, part.total)[..., part.start : part.start + part.width]
        param = columns.reshape(*param.shape[:-1], -1)
    return np.ascontiguousarray(param if row.transform == "same" else param.T).reshape(row.hub_shape)
