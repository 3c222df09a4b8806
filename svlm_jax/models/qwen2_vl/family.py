"""The records of Qwen2-VL and Qwen2.5-VL, which differ in their towers and in how positions tell time."""

import dataclasses
from typing import Any

from svlm_jax.models.family import Family, Geometry, ShardingRow, VisualLayout
from svlm_jax.models.qwen2_vl.config import QwenVisionConfig, preprocessor_fields, read_config, write_config
from svlm_jax.models.qwen2_vl.model import Qwen
from svlm_jax.models.qwen2_vl.names import QWEN2_5_VL_NAMES, QWEN2_VL_NAMES
from svlm_jax.models.qwen2_vl.presets import QWEN2_5_VL_PRESETS, QWEN2_VL_PRESETS
from svlm_jax.models.resize_rule import ResizeRule

LAYOUT = VisualLayout("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'video' %}{{ '<|vision_start|><|video_pad|><|vision_end|>' }}"
    "{% elif part['type'] == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{ '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# The tower is small: cut where it lies, whole where it is used.
SHARDING: tuple[ShardingRow, ...] = (
    (r"visual\.patch_embed\.weight", ("patch", "vision")),
    (r"visual\.(blocks\.\d+|merger)\.(attn|mlp)\.(qkv|proj|gate_up|fc1)\.weight", ("vision", None)),
    (r"visual\.(blocks\.\d+|merger)\.mlp\.(down|fc2)\.weight", (None, "vision")),
    (r"visual\.(blocks\.\d+|merger)\.[\w.]*(norm\d?\.weight|bias)", (None,)),
)


def _resize_rule(vision: QwenVisionConfig) -> ResizeRule:
    return ResizeRule.of_tokens(vision.cell, vision.grid_frames)


def _random_text(g: Geometry) -> dict[str, Any]:
    return {"mrope_section": g.sections}


def _random_2_5(g: Geometry) -> QwenVisionConfig:
    """Windows of 4 x 4 patches (tiny) or 8 x 8."""
    return QwenVisionConfig(
        depth=g.vision_layers,
        hidden_size=g.vision_width,
        intermediate_size=g.vision_hidden,
        num_heads=g.vision_heads,
        out_hidden_size=g.width,
        window_size=56 if g.tiny else 112,
        fullatt_block_indexes=tuple(range(1, g.vision_layers, max(g.vision_layers // 3, 1))),
        tokens_per_second=2.0,
    )


def _random_2(g: Geometry) -> QwenVisionConfig:
    return QwenVisionConfig(
        depth=g.vision_layers,
        hidden_size=g.vision_width,
        intermediate_size=2 * g.vision_width,  # config.json states it as a multiple of the width
        num_heads=g.vision_heads,
        out_hidden_size=g.width,
        hidden_act="quick_gelu",
    )


QWEN2_5_VL = Family(
    name="qwen2_5_vl",
    architecture="Qwen2_5_VLForConditionalGeneration",
    module=Qwen,
    tower_config=QwenVisionConfig,
    read_config=read_config,
    write_config=write_config,
    preprocessor_fields=preprocessor_fields,
    names=QWEN2_5_VL_NAMES,
    layout=LAYOUT,
    positions="blocks",
    resize_rule=_resize_rule,
    capabilities=frozenset({"watch", "ask", "train"}),
    random_text=_random_text,
    random_tower=_random_2_5,
    chat_template=CHAT_TEMPLATE,
    sharding=SHARDING,
    presets=QWEN2_5_VL_PRESETS,
)
QWEN2_VL = dataclasses.replace(
    QWEN2_5_VL,
    name="qwen2_vl",
    architecture="Qwen2VLForConditionalGeneration",
    names=QWEN2_VL_NAMES,
    random_tower=_random_2,
    presets=QWEN2_VL_PRESETS,
)
FAMILIES = (QWEN2_5_VL, QWEN2_VL)
