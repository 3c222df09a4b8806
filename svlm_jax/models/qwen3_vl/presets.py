"""The config.json of the released sizes, as on the Hugging Face hub; Instruct and Thinking are alike."""

from collections.abc import Mapping
from typing import Any


def _qwen3_vl(
    width: int, layers: int, heads: int, kv_heads: int, inner: int, *, tied: bool = False, large: bool = True, moe: int = 0
) -> dict[str, Any]:
    """`large`: the tower of the sizes from 8B on. `moe`: the inner width of each of 128 experts."""
    kind = "qwen3_vl_moe" if moe else "qwen3_vl"
    text = {
        "model_type": f"{kind}_text", "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "head_dim": 128, "intermediate_size": inner, "vocab_size": 151936,
        "attention_bias": False, "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 5_000_000,
        "max_position_embeddings": 262_144,
        "rope_scaling": {"mrope_interleaved": True, "mrope_section": [24, 20, 20], "rope_type": "default"},
    }  # fmt: skip
    if moe:
        text |= {"num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": moe, "decoder_sparse_step": 1}
        text |= {"mlp_only_layers": []}
    size = (27, 1152, 4304, [8, 16, 24]) if large else (24, 1024, 4096, [5, 11, 17])
    vision = {
        "depth": size[0], "hidden_size": size[1], "intermediate_size": size[2], "deepstack_visual_indexes": size[3],
        "num_heads": 16, "out_hidden_size": width, "patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2,
        "in_channels": 3, "num_position_embeddings": 2304, "hidden_act": "gelu_pytorch_tanh",
    }  # fmt: skip
    return {
        "model_type": kind,
        "architectures": ["Qwen3VLMoeForConditionalGeneration" if moe else "Qwen3VLForConditionalGeneration"],
        "image_token_id": 151655,
        "video_token_id": 151656,
        "vision_start_token_id": 151652,
        "vision_end_token_id": 151653,
        "tie_word_embeddings": tied,
        "text_config": text,
        "vision_config": vision,
    }


QWEN3_VL_PRESETS: Mapping[str, Mapping[str, Any]] = {
    "qwen3-vl-2b": _qwen3_vl(2048, 28, 16, 8, 6144, tied=True, large=False),
    "qwen3-vl-4b": _qwen3_vl(2560, 36, 32, 8, 9728, tied=True, large=False),
    "qwen3-vl-8b": _qwen3_vl(4096, 36, 32, 8, 12288),
    "qwen3-vl-32b": _qwen3_vl(5120, 64, 64, 8, 25600),
}
QWEN3_VL_MOE_PRESETS: Mapping[str, Mapping[str, Any]] = {
    "qwen3-vl-30b-a3b": _qwen3_vl(2048, 48, 32, 4, 6144, moe=768),
    "qwen3-vl-235b-a22b": _qwen3_vl(4096, 94, 64, 4, 12288, moe=1536),
}
