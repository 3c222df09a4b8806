"""What a model may be called, in every command and in Python, and where that leads.

embedded, embedded-facts               a model of this package
./my-model, /data/model                a folder in the layout of the Hugging Face hub, or what `convert` made of one
Qwen/Qwen2.5-VL-7B-Instruct            a hub id, owner/name
qwen2.5-vl-7b                          a preset: a released model by its short name; its shape is known without a download
random:small, random:qwen2.5-vl-7b     random weights in a small shape, or in a preset's: they speak, but say nothing
random:small:qwen3_vl                  a small shape of another family
"""

import atexit
import dataclasses
import functools
import shutil
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from svlm_jax.cache.number_formats import EightBit
from svlm_jax.checkpoint import hf
from svlm_jax.checkpoint.random import random_config, write_companions, write_random_checkpoint
from svlm_jax.errors import CheckpointError, ConfigError
from svlm_jax.host.json_files import read_object
from svlm_jax.models import registry
from svlm_jax.models.config import ModelConfig
from svlm_jax.models.functional import Params, init_params
from svlm_jax.models.presets import HUB_IDS, PRESETS, preset
from svlm_jax.models.quant import quantize_params

RANDOM = "random:"
SIZES = ("tiny", "small", "medium")  # of random models: 0.4, 11 and 90 million parameters
_ABOUT = ("*config.json", "tokenizer.json")


@dataclasses.dataclass(frozen=True)
class Description:
    """What is known about a model without its weights.

    Attributes:
      config: its shapes.
      generation_config: what it says about generation and streaming, {} if nothing.
      folder: where its tokenizer lies; None for a preset, of which nothing is fetched.
    """

    config: ModelConfig
    generation_config: dict[str, Any]
    folder: Path | None


def load(
    source: str | Path,
    *,
    dtype: DTypeLike | None,
    quantize: EightBit | None = None,
    revision: str | None = None,
    progress: hf.Progress | None = None,
) -> hf.Checkpoint:
    """The model of that name, with its weights; see `hf.load` for the other arguments. Raises what `hf.load` raises."""
    name = str(source)
    how: dict[str, Any] = {"dtype": dtype, "quantize": quantize, "progress": progress}
    if not name.startswith(RANDOM):
        return hf.load(released(source), revision=revision, **how)
    shape, family = _shape(name)
    folder = _scratch() / f"{shape}-{family}"
    if shape in SIZES:
        if not (folder / "model.safetensors").exists():
            write_random_checkpoint(folder, family=family, size=shape)  # type: ignore[arg-type]
        return hf.load(folder, **how)
    about = describe(name)
    drawn = jnp.dtype(jnp.float32 if dtype is None else dtype)

    def draw(key: jax.Array) -> Params:
        params = init_params(about.config, key, drawn)
        return params if quantize is None else quantize_params(params, quantize)

    params = jax.jit(draw)(jax.random.key(0))
    assert about.folder is not None
    return hf.Checkpoint(about.config, params, about.folder, about.generation_config)


def describe(source: str | Path, *, revision: str | None = None) -> Description:
    """What is known without the weights: of a hub id only the small files are fetched, of a preset nothing at all."""
    name = str(source)
    if name.startswith(RANDOM):
        shape, family = _shape(name)
        config = random_config(family, shape) if shape in SIZES else preset(shape)  # type: ignore[arg-type]
        folder = _scratch() / f"{family}-companions"
        if not folder.exists():
            write_companions(folder, family)
        return Description(config, _settings(folder), folder)
    if released(source) != source:
        return Description(preset(name), {}, None)
    folder = hf.resolve(source, revision=revision, files=_ABOUT)
    return Description(registry.config_from_hf(folder), _settings(folder), folder)


def generation_config(source: str | Path, *, revision: str | None = None) -> dict[str, Any]:
    """What a model says about generation and streaming, {} if nothing; no weights are fetched."""
    if str(source).startswith(RANDOM):
        return describe(source).generation_config
    return hf.generation_config(released(source), revision=revision)


def released(source: str | Path) -> str | Path:
    """The hub id of a preset; any other name as it is. CheckpointError lists what a name can be when it can be nothing."""
    name = str(source)
    if name in (hf.EMBEDDED, hf.FACTS) or isinstance(source, Path) or "/" in name or Path(name).expanduser().exists():
        return source
    if name.lower() in HUB_IDS:
        return HUB_IDS[name.lower()]
    raise CheckpointError(
        f"there is no model named {name!r}: expected a folder, a hub id owner/name, {hf.EMBEDDED}, {hf.FACTS}, "
        f"{', '.join(PRESETS)}, or {RANDOM} and one of {', '.join(SIZES)} or of these"
    )


def _settings(folder: Path) -> dict[str, Any]:
    return read_object(folder / "generation_config.json", CheckpointError, missing_ok=True)


def _shape(name: str) -> tuple[str, str]:
    """The small shape or preset that a name asks for, and its family."""
    shape, colon, family = name.removeprefix(RANDOM).lower().partition(":")
    if shape in PRESETS and not colon:
        return shape, preset(shape).family
    if shape not in SIZES:
        named = shape + colon + family
        raise ConfigError(
            f"there is no shape named {named!r}: expected {RANDOM} and one of {', '.join((*SIZES, *PRESETS))}, the first three "
            "also with a family behind them, as in random:small:qwen3_vl"
        )
    return shape, registry.family(family or "qwen2_5_vl").name


@functools.cache
def _scratch() -> Path:
    """A folder for the files of random models; it goes when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="svlm-random-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
