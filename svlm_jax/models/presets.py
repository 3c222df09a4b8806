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

# The instruction-tuned checkpoints of these shapes on the Hugging Face hub.
HUB_IDS: Mapping[str, str] = {
    "qwen2.5-vl-3b": "Qwen/Qwen2.5-VL-3B-Instruct",
    "qwen2.5-vl-7b": "Qwen/Qwen2.5-VL-7B-Instruct",
    "qwen2.5-vl-32b": "Qwen/Qwen2.5-VL-32B-Instruct",
    "qwen2.5-vl-72b": "Qwen/Qwen2.5-VL-72B-Instruct",
    "qwen3-vl-2b": "Qwen/Qwen3-VL-2B-Instruct",
    "qwen3-vl-4b": "Qwen/Qwen3-VL-4B-Instruct",
    "qwen3-vl-8b": "Qwen/Qwen3-VL-8B-Instruct",
    "qwen3-vl-32b": "Qwen/Qwen3-VL-32B-Instruct",
    "qwen3-vl-30b-a3b": "Qwen/Qwen3-VL-30B-A3B-Instruct",
    "qwen3-vl-235b-a22b": "Qwen/Qwen3-VL-235B-A22B-Instruct",
    "qwen2-vl-2b": "Qwen/Qwen2-VL-2B-Instruct",
    "qwen2-vl-7b": "Qwen/Qwen2-VL-7B-Instruct",
    "llava-onevision-qwen2-0.5b-ov": "llava-hf/llava-onevision-qwen2-0.5b-ov-hf",
    "llava-onevision-qwen2-7b-ov": "llava-hf/llava-onevision-qwen2-7b-ov-hf",
}


def preset(name: str) -> ModelConfig:
    """The configuration of a released model; ConfigError lists the names when there is none of that name."""
    if name.lower() not in PRESETS:
        raise ConfigError(f"there is no model named {name!r}: expected one of {', '.join(PRESETS)}")
    return registry.config_from_hf(dict(PRESETS[name.lower()]))
