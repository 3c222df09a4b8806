"""Reading checkpoints from a folder or by hub id, straight into device arrays.

The layout is that of the Hugging Face hub, or what `convert` made of it for Orbax.
"""

import dataclasses
import functools
import itertools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from svlm_jax.cache.number_formats import EightBit
from svlm_jax.checkpoint import orbax_io
from svlm_jax.checkpoint.keys import Row, from_hub, rows
from svlm_jax.checkpoint.tensors import SafetensorsFile, is_finite, open_folder
from svlm_jax.errors import CheckpointError
from svlm_jax.host.json_files import read_object
from svlm_jax.host.schema import brief
from svlm_jax.models import quant, registry
from svlm_jax.models.config import ModelConfig
from svlm_jax.models.functional import Params, abstract_params
from svlm_jax.models.hf_schema import tied_inside
from svlm_jax.prompt.tokenizer import Tokenizer

# (path, shape) of a parameter -> where it lives; None for the default device.
ShardingRule: TypeAlias = Callable[[tuple[str, ...], tuple[int, ...]], jax.sharding.Sharding]
# (numbers read so far, numbers in all)
Progress: TypeAlias = Callable[[int, int], None]

# Beside config.json in converted folders, instead of safetensors.
ORBAX_FOLDER = "params"
_QUANTIZED = re.compile(r"\.(qweight|qzeros|scales|g_idx|weight_scale(_inv)?|weight_packed|absmax|quant_map|SCB)$")
EMBEDDING = ("decoder", "embed", "weight")
_WANTED = ("*.json", "*.safetensors", "*.jinja", "merges.txt", "vocab.json")
# The names of the models that are part of the package, and where they lie: one commentates on matches, one recalls facts.
EMBEDDED, FACTS = "embedded", "embedded-facts"
EMBEDDED_FOLDER = Path(__file__).parents[1] / "embedded" / "match"
FACTS_FOLDER = EMBEDDED_FOLDER.with_name("facts")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A loaded model: its configuration, its parameters, and what else its folder says."""

    config: ModelConfig
    params: Params
    folder: Path
    generation_config: dict[str, Any]

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """Read on first use; CheckpointError when the folder has none."""
        return Tokenizer(self.folder / "tokenizer.json")


def load(
    source: str | Path,
    *,
    dtype: DTypeLike | None = jnp.float32,
    sharding: ShardingRule | None = None,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    progress: Progress | None = None,
    quantize: EightBit | None = None,
) -> Checkpoint:
    """Loads a local folder, a hub id such as "Qwen/Qwen2.5-VL-7B-Instruct", or "embedded" or "embedded-facts" of this package.

    One tensor at a time goes from the memory-mapped file to its devices in the wanted dtype (None: as it is stored); with
    `sharding`, each device reads only its part; with `quantize`, the decoder's matrices become 8 bits wide (`models.quant`),
    one after the other. Raises CheckpointError for anything that is not a complete checkpoint of a
    supported model.
    """
    folder = resolve(source, revision=revision, cache_dir=cache_dir)
    config = _config(folder)
    if (folder / ORBAX_FOLDER).is_dir():
        params = _load_orbax(folder, config, dtype, sharding)
        params = params if quantize is None else _quantize_all(params, quantize)
        if progress is not None:
            progress(1, 1)
    else:
        params = load_params(folder, config, dtype=dtype, sharding=sharding, progress=progress, quantize=quantize)
    return Checkpoint(config, params, folder, read_object(folder / "generation_config.json", CheckpointError, missing_ok=True))


def generation_config(source: str | Path, *, revision: str | None = None) -> dict[str, Any]:
    """What a checkpoint says about generation and streaming, {} if nothing; no weights are fetched."""
    folder = resolve(source, revision=revision, files=("generation_config.json",))
    return read_object(folder / "generation_config.json", CheckpointError, missing_ok=True)


def resolve(
    source: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    files: Sequence[str] = _WANTED,
) -> Path:
    """A folder of checkpoint files: `source` itself, or the local snapshot of that hub id; `files` are downloaded if need be.

    "embedded" and "embedded-facts" are the models of this package; a folder of that name is "./embedded". Respects HF_HOME,
    HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE.
    """
    if source in (EMBEDDED, FACTS):
        folder = EMBEDDED_FOLDER if source == EMBEDDED else FACTS_FOLDER
        if not (folder / "config.json").is_file():
            raise CheckpointError(f"this installation lacks the embedded model: {folder} has no config.json.")
        return folder
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    name = str(source)
    if path.exists() or isinstance(source, Path) or name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise CheckpointError(f"{name} is neither a folder nor a hub id of the form owner/name.")
    import huggingface_hub as hub
    from huggingface_hub import errors

    try:
        return Path(
            hub.snapshot_download(
                name,
                revision=revision,
                cache_dir=cache_dir,
                allow_patterns=list(files),
                local_files_only=hub.constants.HF_HUB_OFFLINE,
            )
        )
    except errors.LocalEntryNotFoundError as error:
        raise CheckpointError(
            f"{name} is neither a folder nor in the local hub cache, and the hub cannot be reached."
        ) from error
    except errors.GatedRepoError as error:
        raise CheckpointError(f"{name} is gated: accept its terms on the hub, and set HF_TOKEN to a token of yours.") from error
    except errors.RepositoryNotFoundError as error:
        raise CheckpointError(
            f"{name} is no folder, and the hub has no such model (for a private one, set HF_TOKEN)."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise CheckpointError(f"{name} has no revision {revision!r} on the hub.") from error
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(f"{name} is no folder, and the hub does not provide it: {reason}") from error


def load_params(
    folder: Path,
    config: ModelConfig,
    *,
    dtype: DTypeLike | None,
    sharding: ShardingRule | None = None,
    progress: Progress | None = None,
    quantize: EightBit | None = None,
) -> Params:
    """The parameters of a folder. Unknown, missing and mis-shaped tensors are a CheckpointError that names them."""
    where = _tensors(folder, config)
    table = rows(config)
    _check(folder, config, table, where)
    total = sum(row.size for row in table)
    params: Params = {}
    spoiled: list[str] = []
    done = 0
    for path, of in itertools.groupby(table, key=lambda row: row.path):
        parts = list(of)
        *parents, leaf = path
        node = functools.reduce(lambda tree, part: tree.setdefault(part, {}), parents, params)
        sources = [where[row.name] for row in parts]
        array = _place([file.read(name) for name, file in sources], parts, dtype, sharding, spoiled)
        kind = quant.kind(".".join(path))
        node[leaf] = array if quantize is None or kind is None else _quantize(array, quantize, kind)
        for _, file in sources:
            file.forget()
        done += sum(row.size for row in parts)
        if progress is not None:
            progress(done, total)
    _check_finite(folder, spoiled)
    return params


def check_weights(folder: Path, *, progress: Progress | None = None) -> None:
    """Raises CheckpointError for weights that `load` would refuse; reads all of them, and needs no memory for them."""
    config = _config(folder)
    if (folder / ORBAX_FOLDER).is_dir():
        return
    where, table = _tensors(folder, config), rows(config)
    _check(folder, config, table, where)
    spoiled: list[str] = []
    for done, row in enumerate(table, 1):
        name, file = where[row.name]
        if not is_finite(file.read(name)):
            spoiled.append(name)
        file.forget()
        if progress is not None:
            progress(done, len(table))
    _check_finite(folder, spoiled)


def dtype_of(params: Params) -> np.dtype:
    """The dtype that is computed in: that of what is never quantised."""
    return params["decoder"]["norm"]["weight"].dtype


_quantize = jax.jit(quant.quantize, static_argnums=(1, 2))
_quantize_all = jax.jit(quant.quantize_params, static_argnums=1, donate_argnums=0)


def _load_orbax(folder: Path, config: ModelConfig, dtype: DTypeLike | None, sharding: ShardingRule | None) -> Params:
    """The parameters of a converted folder, each device reading its own part."""
    stored = read_object(folder / "config.json", CheckpointError).get("dtype", "float32")

    def abstract(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        names = tuple(key.key for key in path)
        where = jax.sharding.SingleDeviceSharding(jax.devices()[0]) if sharding is None else sharding(names, leaf.shape)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)

    shapes = abstract_params(config, jnp.dtype(stored if dtype is None else dtype))
    return orbax_io.load(folder / ORBAX_FOLDER, jax.tree_util.tree_map_with_path(abstract, shapes))


def _config(folder: Path) -> ModelConfig:
    """The configuration; where only the decoder's part of it ties the head, as older files do, a head of its own counts."""
    config = registry.config_from_hf(folder)
    if config.text.tie_word_embeddings or not tied_inside(read_object(folder / "config.json", CheckpointError)):
        return config
    tied = not (folder / ORBAX_FOLDER).is_dir() and registry.record(config).names.head not in _tensors(folder, config)
    return dataclasses.replace(config, text=dataclasses.replace(config.text, tie_word_embeddings=tied))


def _tensors(folder: Path, config: ModelConfig) -> dict[str, tuple[str, SafetensorsFile]]:
    """By the name that the table has for a tensor: its name in the file, and the file."""
    names = registry.record(config).names
    return {names.as_published(name): (name, file) for name, file in open_folder(folder).items()}


def _check(folder: Path, config: ModelConfig, table: list[Row], where: dict[str, tuple[str, SafetensorsFile]]) -> None:
    expected = {row.name: row for row in table}
    # A tied head is the embedding; some files repeat it all the same.
    optional = {registry.record(config).names.head} if config.text.tie_word_embeddings else set()
    missing = [name for name in expected if name not in where]
    unknown = [name for name in where if name not in expected and name not in optional]
    shaped = {name: where[name][1].shape(where[name][0]) for name in expected if name in where}
    differ = [(name, shape) for name, shape in shaped.items() if shape not in expected[name].hub_shapes]
    wrong = [f"{name} {list(shape)} instead of {list(expected[name].hub_shape)}" for name, shape in differ]
    complaints = [("lacks", missing), ("has unknown", unknown), ("has mis-shaped", wrong)]
    found = [f"{verb} {len(names)} tensor{'s' * (len(names) > 1)}: {_few(names)}" for verb, names in complaints if names]
    if found:
        reason = " Its weights look quantized, which is not supported." if any(map(_QUANTIZED.search, unknown)) else ""
        raise CheckpointError(f"the checkpoint {folder} does not match its config.json: it {'; it '.join(found)}.{reason}")
    for head in optional & where.keys():
        (name, file), embed = where[head], next(row.name for row in table if row.path == EMBEDDING)
        if not _same(file.read(name), where[embed][1].read(where[embed][0])):
            raise CheckpointError(
                f"the checkpoint {folder} has a {name} that differs from {embed}, but its config.json ties both "
                "(tie_word_embeddings): expected false there, or no head."
            )


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two matrices are equal; a few rows at a time, because a head may be larger than what is free."""
    return a.shape == b.shape and all(np.array_equal(a[i : i + 1024], b[i : i + 1024]) for i in range(0, len(a), 1024))


def _check_finite(folder: Path, spoiled: list[str]) -> None:
    if spoiled:
        count = f"{len(spoiled)} tensor{'s' * (len(spoiled) > 1)}"
        raise CheckpointError(f"the checkpoint {folder} has NaN or infinite numbers in {count}: {_few(spoiled)}.")


def _few(names: list[str]) -> str:
    return ", ".join(map(brief, names[:3])) + (", …" if len(names) > 3 else "")


def _place(
    tensors: list[np.ndarray], of: list[Row], dtype: DTypeLike | None, sharding: ShardingRule | None, spoiled: list[str]
) -> jax.Array:
    """Copies once, out of the file and into the wanted dtype and layout, then hands the copy to the device."""

    def part(index: tuple[slice, ...] | None = None) -> np.ndarray:
        copy = from_hub(tensors, of, dtype, index)
        if of[0].name not in spoiled and not is_finite(copy):
            spoiled.append(of[0].name)
        return copy

    if sharding is None:
        array = jnp.asarray(part())
    else:
        array = jax.make_array_from_callback(of[0].shape, sharding(of[0].path, of[0].shape), part)
    # Transfers are asynchronous: without waiting, the copies of many tensors would pile up in host memory.
    return array.block_until_ready()
