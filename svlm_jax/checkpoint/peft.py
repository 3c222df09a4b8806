"""Low-rank adapters in the format of the `peft` library: adapter_config.json and adapter_model.safetensors.

    theirs    q_proj, k_proj and v_proj each have a pair A (r, in), B (out, r)          x · Aᵀ · Bᵀ · alpha / r
    ours      attn.qkv is one weight with one pair: down (in, R), up (R, out)           x · down · up · scale

Written, the projections of a fused weight share A. Read, they share it if they are equal, else their ranks stand side by side
(R = 3 r), each reaching its own columns only. Either way a product is what it was.
"""

import dataclasses
import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from svlm_jax.checkpoint import keys
from svlm_jax.checkpoint.tensors import SafetensorsFile, is_finite
from svlm_jax.errors import CheckpointError
from svlm_jax.host.files import write_json
from svlm_jax.host.folders import new_folder
from svlm_jax.host.json_files import read_object
from svlm_jax.host.schema import Anything, Number, Record, Whole, brief
from svlm_jax.models.config import ModelConfig
from svlm_jax.models.flat_params import DOWN, LAYERS, UP, Flat
from svlm_jax.models.functional import Params

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_KEY = re.compile(r"base_model\.model\..*?\blayers\.(\d+)\.(.+)\.lora_(A|B)\.weight")
_LAYER = re.compile(r".*?\blayers\.(\d+)\.(.+)")
_TOWER = re.compile(r"\b(visual|vision_tower)\b")
# Settings of peft that change what an adapter computes, and the values with which it computes what is written above.
_PLAIN: Mapping[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "use_dora": (False, None),
    "use_rslora": (False, None),
    "bias": ("none", None),
    "modules_to_save": (None, []),
    "rank_pattern": (None, {}),
    "alpha_pattern": (None, {}),
    "fan_in_fan_out": (False, None),
}


def save(folder: str | Path, config: ModelConfig, adapters: Flat, *, alpha: float, base: str | None) -> None:
    """Writes adapters, "decoder.layers.….weight.lora_down" (L, in, r) and lora_up (L, r, out), as a folder of peft's.

    base: name of the model that they were trained on, for people and for peft to read.
    """
    tensors: dict[str, np.ndarray] = {}
    rank = 0
    for row, name, layer, module in _projections(config):
        if name + DOWN not in adapters:
            continue
        down, up = (np.asarray(adapters[name + end][layer], np.float32) for end in (DOWN, UP))
        rank = down.shape[1]
        stem = f"base_model.model.model.language_model.layers.{layer}.{module}"
        tensors[f"{stem}.lora_A.weight"] = np.ascontiguousarray(down.T)
        tensors[f"{stem}.lora_B.weight"] = keys.to_hub(up, dataclasses.replace(row, hub_shape=(row.hub_shape[0], rank)))
    if not tensors:
        raise CheckpointError("there are no adapters to write, expected some beside the weights of the decoder's layers.")
    targets = sorted({name.split(".")[-3] for name in tensors})
    about = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        # The tower has modules of the same names: only those of the language model are meant.
        "target_modules": rf".*language_model\.layers\.\d+\.\w+\.({'|'.join(targets)})",
        "inference_mode": True,
    }
    with new_folder(folder) as part:
        write_json(part / CONFIG, about)
        save_file(tensors, part / WEIGHTS, metadata={"format": "pt"})


def load(folder: str | Path, config: ModelConfig) -> tuple[Flat, float]:
    """Adapters as `save` takes them, float32, and their scale. CheckpointError for what cannot be an adapter of this model."""
    folder = Path(folder)
    scale = _scale(folder)
    pairs = _pairs(SafetensorsFile(folder / WEIGHTS))
    flat: dict[str, list[Any]] = {}
    fused = itertools.groupby(_projections(config), lambda projection: projection[1:3])
    for (name, layer), group in fused:
        projections = list(group)
        found = [pairs.pop((layer, module), None) for _, _, _, module in projections]
        if any(found):
            down, up = _joined(folder, [row for row, *_ in projections], found)
            flat.setdefault(name + DOWN, []).append((layer, down))
            flat.setdefault(name + UP, []).append((layer, up))
    if pairs:
        layer, module = next(iter(pairs))
        raise CheckpointError(f"{folder} adapts layers.{layer}.{module}, which this model does not have.")
    return {name: _stacked(folder, name, parts, config.text.num_layers) for name, parts in flat.items()}, scale


def merge(params: Params, adapters: Flat, scale: float) -> Params:
    """The parameters of a model with adapters added to its weights, in float32, rounded once to the weights' dtype."""
    layers = dict(params["decoder"]["layers"])
    for path in (name.removesuffix(DOWN) for name in adapters if name.endswith(DOWN)):
        *parents, leaf = path.removeprefix(LAYERS).split(".")
        for number, layer in layers.items():
            down, up = (adapters[path + end][int(number)] for end in (DOWN, UP))
            layers[number] = _changed(layer, [*parents, leaf], np.float32(scale) * (down @ up))
    return {**params, "decoder": {**params["decoder"], "layers": layers}}


def _changed(tree: Any, path: list[str], change: np.ndarray) -> Any:
    if not path:
        return (tree.astype(np.float32) + change).astype(tree.dtype)
    return {**tree, path[0]: _changed(tree[path[0]], path[1:], change)}


def _projections(config: ModelConfig) -> list[tuple[keys.Row, str, int, str]]:
    """Row, our path ("decoder.layers.attn.qkv.weight"), layer and module ("self_attn.q_proj") of the decoder's matrices."""
    found = []
    for row in keys.rows(config):
        path = ".".join(row.path)
        layer = _LAYER.fullmatch(row.name.removesuffix(".weight"))
        if path.startswith(LAYERS) and row.transform == "transpose" and layer is not None:
            ours = ".".join((*row.path[:2], *row.path[3:]))
            found.append((row, ours, int(layer[1]), layer[2]))
    return found


def _scale(folder: Path) -> float:
    about = Record(read_object(folder / CONFIG, CheckpointError), str(folder / CONFIG), CheckpointError)
    for name, plain in _PLAIN.items():
        if (found := about.get(name, Anything(), plain[0])) not in plain:
            raise CheckpointError(
                f"{about.where}: {name} is {brief(repr(found))}, expected {plain[0]!r}: nothing else is known."
            )
    return about.get("lora_alpha", Number()) / about.get("r", Whole(least=1))


def _pairs(file: SafetensorsFile) -> dict[tuple[int, str], dict[str, np.ndarray]]:
    """A and B, float32, by layer and module."""
    pairs: dict[tuple[int, str], dict[str, np.ndarray]] = {}
    for name in file.names:
        key = _KEY.fullmatch(name)
        if key is None or _TOWER.search(name):
            raise CheckpointError(f"{file.path} holds {brief(name)}, expected adapters of the decoder's layers only.")
        tensor = np.array(file.read(name), np.float32)
        if not is_finite(tensor):
            raise CheckpointError(f"{file.path}: {brief(name)} holds numbers that are not finite.")
        pairs.setdefault((int(key[1]), key[2]), {})[key[3]] = tensor
    return pairs


def _joined(folder: Path, rows: list[keys.Row], found: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    """One pair down (in, R), up (R, out) for a weight from those of its projections."""
    for row, pair in zip(rows, found, strict=True):
        if pair is None:
            continue
        outputs, inputs = row.hub_shape
        a, b = pair.get("A"), pair.get("B")
        if a is None or b is None or a.shape[1:] != (inputs,) or b.shape != (outputs, len(a)):
            shapes = [None if x is None else x.shape for x in (a, b)]
            raise CheckpointError(
                f"{folder}: the adapter of {row.name} has {shapes}, expected (r, {inputs}) and ({outputs}, r)."
            )
    first = next(pair["A"] for pair in found if pair is not None)
    shared = all(pair is None or np.array_equal(pair["A"], first) for pair in found)
    down = first if shared else np.concatenate([pair["A"] for pair in found if pair is not None])
    parts, begin = [], 0
    for row, pair in zip(rows, found, strict=True):
        part = np.zeros((row.hub_shape[0], len(down)), np.float32)
        if pair is not None:
            end = begin + len(pair["A"])
            part[:, slice(None) if shared else slice(begin, end)] = pair["B"]
            begin = end
        parts.append(part)
    return np.ascontiguousarray(down.T), keys.from_hub(parts, rows, np.float32)


def _stacked(folder: Path, name: str, parts: list[Any], layers: int) -> np.ndarray:
    """(L, …) with zeros for layers without an adapter, and zeros up to the largest rank."""
    axis = 1 if name.endswith(DOWN) else 0
    rank = max(part.shape[axis] for _, part in parts)
    shape = [layers, *parts[0][1].shape]
    shape[axis + 1] = rank
    out = np.zeros(shape, np.float32)
    for layer, part in parts:
        out[(layer, slice(None), slice(part.shape[1])) if axis == 1 else (layer, slice(part.shape[0]))] = part
    return out
