"""The config.json of the released sizes, as on the Hugging Face hub."""

from collections.abc import Mapping
from typing import Any

_TOKENS = {
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
    "image_token_id": 151655,
    "video_token_id": 151656,
}


def _qwen2_5_vl(
    width: int, layers: int, heads: int, kv_heads: int, inner: int, vocab: int, *, tied: bool = False, vision_inner: int = 3420
) -> dict[str, Any]:
    vision = {
        "depth": 32, "hidden_size": 1280, "num_heads": 16, "intermediate_size": vision_inner, "out_hidden_size": width,
        "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31], "tokens_per_second": 2, "hidden_act": "silu", "in_channels": 3,
    }  # fmt: skip
    text = _qwen2_text(width, layers, heads, kv_heads, inner, vocab, tied)
    return {
        "model_type": "qwen2_5_vl",
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        **text,
        "vision_config": vision,
    }


def _qwen2_vl(
    width: int, layers: int, heads: int, kv_heads: int, inner: int, vocab: int, *, tied: bool = False
) -> dict[str, Any]:
    vision = {
        "depth": 32, "embed_dim": 1280, "num_heads": 16, "mlp_ratio": 4, "hidden_size": width, "patch_size": 14,
        "spatial_merge_size": 2, "temporal_patch_size": 2, "hidden_act": "quick_gelu", "in_channels": 3,
    }  # fmt: skip
    text = _qwen2_text(width, layers, heads, kv_heads, inner, vocab, tied)
    return {"model_type": "qwen2_vl", "architectures": ["Qwen2VLForConditionalGeneration"], **text, "vision_config": vision}


def _qwen2_text(width: int, layers: int, heads: int, kv_heads: int, inner: int, vocab: int, tied: bool) -> dict[str, Any]:
    return {
        **_TOKENS, "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "intermediate_size": inner, "vocab_size": vocab, "tie_word_embeddings": tied,
        "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 1_000_000.0, "max_position_embeddings": 128_000,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    }  # fmt: skip


QWEN2_5_VL_PRESETS: Mapping[str, Mapping[str, Any]] = {
    "qwen2.5-vl-3b": _qwen2_5_vl(2048, 36, 16, 2, 11008, 151936, tied=True),
    "qwen2.5-vl-7b": _qwen2_5_vl(3584, 28, 28, 4, 18944, 152064),
    "qwen2.5-vl-32b": _qwen2_5_vl(5120, 64, 40, 8, 27648, 152064, vision_inner=3456),
    "qwen2.5-vl-72b": _qwen2_5_vl(8192, 80, 64, 8, 29568, 152064, vision_inner=3456),
}
QWEN2_VL_PRESETS: Mapping[str, Mapping[str, Any]] = {
    "qwen2-vl-2b": _qwen2_vl(1536, 28, 12, 2, 8960, 151936, tied=True),
    "qwen2-vl-7b": _qwen2_vl(3584, 28, 28, 4, 18944, 152064),
}
