"""The decoder's half of a Hugging Face `config.json`, which all families share, and the ids of the marks in it."""

from collections.abc import Mapping
from typing import Any

from svlm_jax.errors import CheckpointError
from svlm_jax.host.checks import require
from svlm_jax.models.config import ModelConfig, TextConfig

Raw = Mapping[str, Any]
_TOKEN_IDS = {
    "image_token_id": 151655,
    "video_token_id": 151656,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
}


def text_fields(raw: Raw) -> Raw:
    """The fields of the decoder: hub files of 2024 are flat, those of 2025 repeat them in text_config, newer ones only nest."""
    return {**raw, **raw["text_config"]} if isinstance(raw.get("text_config"), Mapping) else raw


def rope_fields(raw: Raw) -> Raw:
    """What is said about rotary positions, under any of the names that it has had."""
    text = text_fields(raw)
    return {"rope_theta": text.get("rope_theta"), **(text.get("rope_scaling") or {}), **(text.get("rope_parameters") or {})}


def read_text(raw: Raw, **fields: Any) -> TextConfig:
    """The decoder of a parsed config.json. `fields` are those of TextConfig that a family decides by itself.

    Raises CheckpointError for what is not supported, KeyError for a field that has no default.
    """
    text, rope = text_fields(raw), rope_fields(raw)
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "mrope"):
        raise CheckpointError(f"config.json asks for rope_type {kind!r}; supported are 'default' and 'mrope'.")
    if text.get("use_sliding_window"):
        raise CheckpointError("config.json sets use_sliding_window, which is not supported.")
    if text.get("hidden_act", "silu") != "silu":
        raise CheckpointError(f"config.json sets hidden_act {text['hidden_act']!r} for the decoder; supported is 'silu'.")
    heads, width = int(text["num_attention_heads"]), int(text["hidden_size"])
    if "head_dim" not in fields:
        require(width % heads == 0, f"the decoder's width {width} is no multiple of its num_attention_heads {heads}.")
        fields = {**fields, "head_dim": width // heads}
    return TextConfig(
        **{
            "vocab_size": int(text["vocab_size"]),
            "hidden_size": width,
            "intermediate_size": int(text["intermediate_size"]),
            "num_layers": int(text["num_hidden_layers"]),
            "num_heads": heads,
            "num_kv_heads": int(text.get("num_key_value_heads") or heads),
            "rope_theta": float(rope["rope_theta"] or 1_000_000.0),
            "rms_norm_eps": float(text["rms_norm_eps"]),
            "tie_word_embeddings": raw["tie_word_embeddings"],
            "max_position_embeddings": int(text.get("max_position_embeddings", 32_768)),
            **fields,
        }
    )


def write_text(text: TextConfig) -> dict[str, Any]:
    """The fields that `read_text` reads, but for the sections of the positions."""
    return {
        "hidden_act": "silu",
        "vocab_size": text.vocab_size,
        "hidden_size": text.hidden_size,
        "intermediate_size": text.intermediate_size,
        "num_hidden_layers": text.num_layers,
        "num_attention_heads": text.num_heads,
        "num_key_value_heads": text.num_kv_heads,
        "max_position_embeddings": text.max_position_embeddings,
        "rms_norm_eps": text.rms_norm_eps,
        "rope_theta": text.rope_theta,
        "tie_word_embeddings": text.tie_word_embeddings,
        "use_sliding_window": False,
    }


def token_ids(raw: Raw) -> dict[str, int]:
    """The ids of pads and marks in Qwen's files, whose defaults are those of its vocabulary."""
    return {name: int(raw.get(name, default)) for name, default in _TOKEN_IDS.items()}


def write_token_ids(cfg: ModelConfig) -> dict[str, int]:
    """What `token_ids` reads."""
    return {name: getattr(cfg, name) for name in _TOKEN_IDS}
