"""Shapes of the released models by name, so that memory can be planned and programs compiled without a download.

The values are those of each model's config.json on the Hugging Face hub; a test checks the parameter counts they imply.
"""

from collections.abc import Mapping
from typing import Any

from svlm_jax.errors import ConfigError
from svlm_jax.models import registry
from svlm_jax.models.config import ModelConfig

PRESETS: Mapping[str, Mapping[str, Any]] = {
    name: raw for family in registry.FAMILIES.values() for name, raw in family.presets.items()
}


def preset(name: str) -> ModelConfig:
    """The configuration of a released model; ConfigError lists the names when there is none of that name."""
    if name.lower() not in PRESETS:
        raise ConfigError(f"there is no model named {name!r}: expected one of {', '.join(PRESETS)}")
    return registry.config_from_hf(dict(PRESETS[name.lower()]))
