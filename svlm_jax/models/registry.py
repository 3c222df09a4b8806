"""The model families by name, and what is asked of them by the name that a configuration carries."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from svlm_jax.errors import CheckpointError, ConfigError
from svlm_jax.host.json_files import read_object
from svlm_jax.models import llava_onevision, qwen2_vl, qwen3_vl
from svlm_jax.models.config import ModelConfig
from svlm_jax.models.family import Capability, Family
from svlm_jax.models.hf_fields import Raw
from svlm_jax.models.hf_schema import checked_config, read_processor
from svlm_jax.models.resize_rule import ResizeRule

FAMILIES: dict[str, Family] = {}


def register(family: Family) -> None:
    """Adds a family, or replaces the one of its name."""
    FAMILIES[family.name] = family


for _family in (*qwen2_vl.FAMILIES, *qwen3_vl.FAMILIES, *llava_onevision.FAMILIES):
    register(_family)


def family(name: str) -> Family:
    """The record of that name; ConfigError lists the names when there is none."""
    if name not in FAMILIES:
        raise ConfigError(f"the model family is {name!r}, expected one of {', '.join(FAMILIES)}.")
    return FAMILIES[name]


def record(cfg: ModelConfig) -> Family:
    """The family of a model; ConfigError when its tower is one of another family."""
    found = family(cfg.family)
    if type(cfg.vision) is not found.tower_config:
        raise ConfigError(
            f"the vision tower is a {type(cfg.vision).__name__}, but the family {cfg.family} needs a "
            f"{found.tower_config.__name__}."
        )
    return found


def require(cfg: ModelConfig, capability: Capability) -> None:
    """ConfigError for a family that cannot do this, with the families that can."""
    if capability not in record(cfg).capabilities:
        able = [name for name, other in FAMILIES.items() if capability in other.capabilities]
        raise ConfigError(f"the model is a {cfg.family}, which cannot {capability}: expected one of {', '.join(able)}.")


def resize_rule(cfg: ModelConfig) -> ResizeRule:
    """How large the frames of a video reach a model, by its family."""
    return record(cfg).resize_rule(cfg.vision)


def config_from_hf(source: Raw | str | Path) -> ModelConfig:
    """Reads a parsed `config.json`, or the one in a folder together with its `preprocessor_config.json`, if any.

    Understands the flat layout of older hub files and the nested one of newer ones. Raises CheckpointError when the file is
    absent, unreadable, lacks a field or names an unsupported architecture, ConfigError for values that cannot work.
    """
    if isinstance(source, Mapping):
        return _from_raw(checked_config(source), {})
    folder = Path(source)
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} is no checkpoint: it holds {_instead(folder)}.")
    return _from_raw(checked_config(read_object(folder / "config.json", CheckpointError)), read_processor(folder))


def config_to_hf(cfg: ModelConfig) -> dict[str, Any]:
    """The `config.json` of a model: `config_from_hf` makes the same configuration of it, but for the pixel statistics."""
    found = record(cfg)
    return {
        "architectures": [found.architecture],
        "model_type": found.name,
        # Known from generation_config.json; without these lines transformers puts in its own.
        "bos_token_id": None,
        "eos_token_id": None,
        "tie_word_embeddings": cfg.text.tie_word_embeddings,
        **found.write_config(cfg),
    }


def _instead(folder: Path) -> str:
    if (folder / "adapter_config.json").is_file():
        return "an adapter (adapter_config.json), not a whole model: expected the model that it was merged into"
    return "no config.json"


def _from_raw(raw: Raw, preprocessor: Raw) -> ModelConfig:
    found = _named_in(raw)
    if not isinstance(raw.get("vision_config"), Mapping):
        raise CheckpointError("config.json has no vision_config, so it describes no vision-language model.")
    try:
        return found.read_config(found.name, raw, preprocessor)
    except KeyError as error:
        raise CheckpointError(f"config.json lacks the field {error.args[0]!r}.") from error
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"config.json has a field of the wrong type: {error}.") from error


def _named_in(raw: Raw) -> Family:
    for found in FAMILIES.values():
        if raw.get("model_type") == found.name or found.architecture in (raw.get("architectures") or []):
            return found
    named = ", ".join(raw.get("architectures") or []) or raw.get("model_type") or "none named"
    supported = ", ".join(found.architecture for found in FAMILIES.values())
    raise CheckpointError(f"the architecture of the checkpoint ({named}) is not supported; supported are {supported}.")
