"""The records of Qwen3-VL, dense and with mixtures of experts."""

import dataclasses
from typing import Any

from svlm_jax.models.config import ExpertsConfig
from svlm_jax.models.family import Family, Geometry, ShardingRow
from svlm_jax.models.qwen2_vl.family import CHAT_TEMPLATE, LAYOUT
from svlm_jax.models.qwen2_vl.family import SHARDING as QWEN2_SHARDING
from svlm_jax.models.qwen3_vl.config import Qwen3VisionConfig, preprocessor_fields, read_config, write_config
from svlm_jax.models.qwen3_vl.model import Qwen3
from svlm_jax.models.qwen3_vl.names import QWEN3_VL_MOE_NAMES, QWEN3_VL_NAMES
from svlm_jax.models.qwen3_vl.presets import QWEN3_VL_MOE_PRESETS, QWEN3_VL_PRESETS
from svlm_jax.models.resize_rule import ResizeRule

# A stamp tells the mean of the times of its first and last frame.
TIMED_LAYOUT = dataclasses.replace(LAYOUT, time_stamp="<{:.1f} seconds>")
SHARDING: tuple[ShardingRow, ...] = (
    *QWEN2_SHARDING,
    (r"visual\.patch_embed\.bias", (None,)),
    (r"visual\.position\.weight", (None, "vision")),
    (r"visual\.deepstack\.\d+\.mlp\.fc1\.weight", ("vision", None)),
    (r"visual\.deepstack\.\d+\.mlp\.fc2\.weight", (None, "vision")),
    (r"visual\.deepstack\.\d+\.[\w.]*(norm\.weight|bias)", (None,)),
)


def _resize_rule(vision: Qwen3VisionConfig) -> ResizeRule:
    """As its authors' tools read videos (package qwen-vl-utils 0.0.14): no frame has fewer than 128 tokens."""
    return ResizeRule.of_tokens(vision.cell, vision.grid_frames, least=128)


def _random_text(g: Geometry) -> dict[str, Any]:
    return {"mrope_section": g.sections, "mrope_interleaved": True, "attention_bias": False, "qk_norm": True}


def _random_moe_text(g: Geometry) -> dict[str, Any]:
    return {**_random_text(g), "experts": ExpertsConfig(count=8, per_token=2, intermediate_size=3 * g.hidden // 16)}


def _random_tower(g: Geometry) -> Qwen3VisionConfig:
    """6 x 6 learned positions (tiny) or 16 x 16; features behind every other block go to the decoder's first layers."""
    return Qwen3VisionConfig(
        depth=g.vision_layers,
        hidden_size=g.vision_width,
        intermediate_size=g.vision_hidden,
        num_heads=g.vision_heads,
        out_hidden_size=g.width,
        num_position_embeddings=36 if g.tiny else 256,
        deepstack_visual_indexes=tuple(range(0, g.vision_layers - 1, 2))[: g.layers],
    )


QWEN3_VL = Family(
    name="qwen3_vl",
    architecture="Qwen3VLForConditionalGeneration",
    module=Qwen3,
    tower_config=Qwen3VisionConfig,
    read_config=read_config,
    write_config=write_config,
    preprocessor_fields=preprocessor_fields,
    names=QWEN3_VL_NAMES,
    layout=TIMED_LAYOUT,
    positions="frames",
    resize_rule=_resize_rule,
    capabilities=frozenset({"watch", "ask", "train"}),
    random_text=_random_text,
    random_tower=_random_tower,
    chat_template=CHAT_TEMPLATE,
    sharding=SHARDING,
    presets=QWEN3_VL_PRESETS,
)
QWEN3_VL_MOE = dataclasses.replace(
    QWEN3_VL,
    name="qwen3_vl_moe",
    architecture="Qwen3VLMoeForConditionalGeneration",
    names=QWEN3_VL_MOE_NAMES,
    random_text=_random_moe_text,
    presets=QWEN3_VL_MOE_PRESETS,
)
FAMILIES = (QWEN3_VL, QWEN3_VL_MOE)
