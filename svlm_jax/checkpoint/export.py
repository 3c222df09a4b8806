"""Writing checkpoints in the layout of the Hugging Face hub: folders that `transformers` loads with equal logits."""

import functools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import save_file

from svlm_jax.checkpoint.hf import Progress
from svlm_jax.checkpoint.keys import Row, rows, to_hub
from svlm_jax.errors import CheckpointError
from svlm_jax.host.files import write_json
from svlm_jax.host.folders import new_folder
from svlm_jax.models import registry
from svlm_jax.models.config import ModelConfig
from svlm_jax.models.functional import Params

MAX_SHARD_BYTES = 5_000_000_000
# What a folder holds besides weights and config.json.
COMPANIONS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.json",
    "chat_template.jinja",
    "generation_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
)


def export(
    folder: str | Path,
    config: ModelConfig,
    params: Params,
    *,
    tokenizer_from: str | Path | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    progress: Progress | None = None,
) -> None:
    """Writes a new folder with config.json, safetensors in the parameters' dtype, and preprocessor_config.json.

    `tokenizer_from` is a folder whose tokenizer, chat template and generation settings are copied. The folder appears only
    when it is complete; at most one shard is held in host memory. Raises CheckpointError when it already exists, or when
    the parameters are not those of `config`.
    """
    with new_folder(folder) as fresh:
        if tokenizer_from is not None:
            copy_companions(Path(tokenizer_from), fresh)
        write_weights(fresh, config, params, max_shard_bytes=max_shard_bytes, progress=progress)


def copy_companions(source: Path, destination: Path) -> None:
    """Copies tokenizer, templates and settings, whatever of it exists."""
    for name in COMPANIONS:
        if (source / name).is_file():
            shutil.copyfile(source / name, destination / name)


def write_config(folder: Path, config: ModelConfig, dtype: Any) -> None:
    """config.json, and a preprocessor_config.json with the same pixel statistics unless there is one."""
    # Older versions of transformers read torch_dtype, newer ones dtype.
    write_json(
        folder / "config.json", {**registry.config_to_hf(config), "torch_dtype": str(dtype), "dtype": str(dtype)}, indent=2
    )
    if (folder / "preprocessor_config.json").exists():
        return
    write_json(folder / "preprocessor_config.json", registry.record(config).preprocessor_fields(config), indent=2)


def write_weights(
    folder: Path,
    config: ModelConfig,
    params: Params,
    *,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    progress: Progress | None = None,
) -> None:
    """config.json and the safetensors files, with an index if there are several."""
    table = rows(config)
    leaves = {row.name: _leaf(params, row) for row in table}
    dtype = leaves[table[0].name].dtype
    write_config(folder, config, dtype)
    shards = list(_shards(table, dtype.itemsize, max_shard_bytes))
    total, done = sum(row.size for row in table) * dtype.itemsize, 0
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = "model.safetensors" if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        save_file({row.name: to_hub(np.asarray(leaves[row.name]), row) for row in shard}, folder / file, {"format": "pt"})
        weight_map |= {row.name: file for row in shard}
        done += sum(row.size for row in shard) * dtype.itemsize
        if progress is not None:
            progress(done, total)
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        write_json(folder / "model.safetensors.index.json", index, indent=2)


def _leaf(params: Params, row: Row) -> jax.Array:
    try:
        leaf: Any = functools.reduce(lambda tree, part: tree[part], row.path, params)
    except (KeyError, TypeError):
        raise CheckpointError(f"the parameters lack {'.'.join(row.path)}, which the configuration asks for.") from None
    if leaf.shape != row.shape:
        raise CheckpointError(f"the parameter {'.'.join(row.path)} has shape {leaf.shape}, expected {row.shape}.")
    return leaf


def _shards(table: list[Row], itemsize: int, limit: int) -> Iterator[list[Row]]:
    """Rows in order, cut so that each shard stays below `limit` bytes; a tensor larger than that is a shard of its own."""
    shard: list[Row] = []
    held = 0
    for row in table:
        size = row.size * itemsize
        if shard and held + size > limit:
            yield shard
            shard, held = [], 0
        shard.append(row)
        held += size
    yield shard
