"""The config.json of the released sizes, as on the Hugging Face hub."""

from collections.abc import Mapping
from typing import Any


def _llava_onevision(
    width: int, layers: int, heads: int, kv_heads: int, inner: int, vocab: int, *, tied: bool = False
) -> dict[str, Any]:
    vision = {
        "model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 26,
        "num_attention_heads": 16, "image_size": 384, "patch_size": 14, "vision_use_head": False,
    }  # fmt: skip
    text = {
        "model_type": "qwen2", "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "intermediate_size": inner, "vocab_size": vocab, "tie_word_embeddings": tied,
        "rope_theta": 1_000_000.0,
    }  # fmt: skip
    return {
        "model_type": "llava_onevision",
        "architectures": ["LlavaOnevisionForConditionalGeneration"],
        "image_token_index": 151646,
        "video_token_index": 151647,
        "text_config": text,
        "vision_config": vision,
    }


LLAVA_PRESETS: Mapping[str, Mapping[str, Any]] = {
    "llava-onevision-qwen2-0.5b-ov": _llava_onevision(896, 24, 14, 2, 4864, 152000, tied=True),
    "llava-onevision-qwen2-7b-ov": _llava_onevision(3584, 28, 28, 4, 18944, 152128),
}
