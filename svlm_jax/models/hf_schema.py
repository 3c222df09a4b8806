"""What the fields of a Hugging Face `config.json` and of its processors may be, checked before any family reads them.

Fields that no table names are carried along: `transformers` writes many that nobody here looks at.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from svlm_jax.errors import CheckpointError
from svlm_jax.host.json_files import read_object
from svlm_jax.host.schema import Either, Flag, Kind, ListOf, Number, Object, Record, Row, Text, Whole

_WIDTH, _LAYERS, _HEADS = Whole(least=1, most=2**20), Whole(least=1, most=1000), Whole(least=1, most=2**14)
_PIXELS, _ID = Whole(least=1, most=2**14), Whole(least=0, most=2**31 - 1)
_EPSILON, _FACTOR = Number(above=0, most=1), Number(above=0, most=1e15)

# The decoder's fields stand beside the others in hub files of 2024, in text_config in newer ones, and in both between.
TEXT: Mapping[str, Kind[Any]] = {
    "vocab_size": Whole(least=1, most=2**24),
    "hidden_size": _WIDTH,
    "intermediate_size": _WIDTH,
    "num_hidden_layers": _LAYERS,
    "num_attention_heads": _HEADS,
    "num_key_value_heads": _HEADS,
    "head_dim": _WIDTH,
    "moe_intermediate_size": _WIDTH,
    "num_experts": Whole(least=1, most=2**14),
    "num_local_experts": Whole(least=1, most=2**14),  # what transformers 5 calls them
    "num_experts_per_tok": Whole(least=1, most=2**14),
    "decoder_sparse_step": Whole(least=1, most=1000),
    "mlp_only_layers": ListOf(Whole(least=0, most=1000)),
    "max_position_embeddings": Whole(least=1, most=2**31 - 1),
    "rms_norm_eps": _EPSILON,
    "rope_theta": _FACTOR,
    "rope_scaling": Object(),
    "rope_parameters": Object(),
    "hidden_act": Text(),
    "use_sliding_window": Flag(),
    "layer_types": ListOf(Text()),
    "tie_word_embeddings": Flag(),
    "attention_bias": Flag(),
    "model_type": Text(),
}
ROPE: Mapping[str, Kind[Any]] = {
    "rope_type": Text(),
    "type": Text(),
    "rope_theta": _FACTOR,
    "mrope_section": ListOf(Whole(least=0, most=2**20)),
    "mrope_interleaved": Flag(),
}
OUTER: Mapping[str, Kind[Any]] = {
    **TEXT,
    "architectures": ListOf(Text()),
    "text_config": Object(),
    "vision_config": Object(),
    "quantization_config": Object(),
    "image_token_id": _ID,
    "video_token_id": _ID,
    "image_token_index": _ID,
    "video_token_index": _ID,
    "vision_start_token_id": _ID,
    "vision_end_token_id": _ID,
    "vision_feature_layer": Either((Whole(-1000, 1000), ListOf(Whole(-1000, 1000), least=1))),
    "vision_feature_select_strategy": Text(),
    "vision_aspect_ratio": Text(),
    "projector_hidden_act": Text(),
    "multimodal_projector_bias": Flag(),
    "image_grid_pinpoints": ListOf(Row((_PIXELS, _PIXELS)), most=10_000),
}
VISION: Mapping[str, Kind[Any]] = {
    "model_type": Text(),
    "depth": _LAYERS,
    "num_hidden_layers": _LAYERS,
    "hidden_size": _WIDTH,
    "embed_dim": _WIDTH,
    "out_hidden_size": _WIDTH,
    "intermediate_size": _WIDTH,
    "mlp_ratio": Number(above=0, most=1000),
    "num_heads": _HEADS,
    "num_attention_heads": _HEADS,
    "in_channels": Whole(least=1, most=64),
    "in_chans": Whole(least=1, most=64),
    "num_channels": Whole(least=1, most=64),
    "patch_size": _PIXELS,
    "image_size": _PIXELS,
    "temporal_patch_size": Whole(least=1, most=1000),
    "spatial_merge_size": Whole(least=1, most=1000),
    "window_size": Whole(least=0, most=2**14),
    "fullatt_block_indexes": ListOf(Whole(least=0, most=1000)),
    "deepstack_visual_indexes": ListOf(Whole(least=0, most=1000)),
    "num_position_embeddings": Whole(least=1, most=2**24),
    "tokens_per_second": Number(above=0, most=1e6),
    "hidden_act": Text(),
    "layer_norm_eps": _EPSILON,
    "vision_use_head": Flag(),
}
PROCESSOR: Mapping[str, Kind[Any]] = {
    "image_mean": ListOf(Number(least=-1e3, most=1e3)),
    "image_std": ListOf(Number(above=0, most=1e3)),
    "rescale_factor": Number(),
    "do_rescale": Flag(),
    "do_normalize": Flag(),
}


def checked_config(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A parsed config.json whose fields are of their kinds, without those that are null.

    `tie_word_embeddings` of the whole model counts where it is given, else that of the decoder.

    Raises:
      CheckpointError: a field is not of its kind; or the weights are quantised.
    """
    outer = _checked(raw, "config.json", OUTER)
    if "quantization_config" in outer:
        method = outer["quantization_config"].get("quant_method", "an unnamed method")
        raise CheckpointError(
            f"the checkpoint's weights are quantized ({method!r:.60}), which is not supported: expected one with weights in "
            "bfloat16, float16 or float32, which --quantize int8 or fp8 makes as small."
        )
    if "text_config" in outer:
        outer["text_config"] = _checked(outer["text_config"], "config.json, text_config", TEXT)
    if "vision_config" in outer:
        outer["vision_config"] = _checked(outer["vision_config"], "config.json, vision_config", VISION)
    inner = outer.get("text_config", {})
    for part, where in ((outer, "config.json"), (inner, "config.json, text_config")):
        for name in ("rope_scaling", "rope_parameters"):
            if name in part:
                part[name] = _checked(part[name], f"{where}, {name}", ROPE)
    other = sorted({kind for part in (outer, inner) for kind in part.get("layer_types", ())} - {"full_attention"})
    if other:
        raise CheckpointError(f"config.json has layer_types {other[0]!r}, which is not supported: expected 'full_attention'.")
    tied = inner.pop("tie_word_embeddings", False)
    outer.setdefault("tie_word_embeddings", tied)
    return outer


def tied_inside(raw: Mapping[str, Any]) -> bool:
    """Whether only the decoder's own part of a config.json ties the head to the embedding, as files of 2024 do."""
    inner = raw.get("text_config")
    return isinstance(inner, Mapping) and inner.get("tie_word_embeddings") is True


def read_processor(folder: Path) -> dict[str, Any]:
    """How a checkpoint's processor normalises pixels; {} when no file says so.

    `transformers` 5 keeps all processors in processor_config.json, older ones each in its own file. That of videos comes first.

    Raises:
      CheckpointError: a file cannot be read, a field is not of its kind, or pixels are not normalised as here.
    """
    nested = read_object(folder / "processor_config.json", CheckpointError, missing_ok=True)
    for name, file in (("video_processor", "video_preprocessor_config.json"), ("image_processor", "preprocessor_config.json")):
        for fields, where in (
            (nested.get(name), f"processor_config.json, {name}"),
            (read_object(folder / file, CheckpointError, missing_ok=True), file),
        ):
            if not fields:
                continue
            found = _checked(fields, where, PROCESSOR)
            off = [flag for flag in ("do_rescale", "do_normalize") if found.get(flag) is False]
            if off or abs(found.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-3:
                field = off[0] if off else "rescale_factor"
                raise CheckpointError(
                    f"{where} has {field} {found[field]!r}, which is not supported: expected pixels divided by 255 and "
                    "normalized by image_mean and image_std."
                )
            if "image_mean" in found or "image_std" in found:
                return found
    return {}


def _checked(raw: Any, where: str, kinds: Mapping[str, Kind[Any]]) -> dict[str, Any]:
    record = Record(raw, where, CheckpointError)
    present = {name: value for name, value in record.data.items() if value is not None}
    return {name: record.get(name, kinds[name]) if name in kinds else value for name, value in present.items()}
