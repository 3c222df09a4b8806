"""The record of LLaVA-OneVision."""

from typing import Any

from svlm_jax.models.family import Family, Geometry, VisualLayout
from svlm_jax.models.llava_onevision.config import (
    SiglipConfig,
    default_pinpoints,
    preprocessor_fields,
    read_config,
    write_config,
)
from svlm_jax.models.llava_onevision.model import LlavaOnevision
from svlm_jax.models.llava_onevision.names import LLAVA_NAMES
from svlm_jax.models.llava_onevision.presets import LLAVA_PRESETS
from svlm_jax.models.resize_rule import ResizeRule

# Pictures first, then videos, then words, as in the published template.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + ' ' }}"
    "{% if message['content'] is string %}{{ '\\n' + message['content'] }}"
    "{% else %}{% for kind in ['image', 'video'] %}"
    "{% for part in message['content'] if part['type'] == kind %}{{ '<' + kind + '>' }}{% endfor %}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ '\\n' + part['text'] }}{% endfor %}{% endif %}"
    "{{ '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def _resize_rule(vision: SiglipConfig) -> ResizeRule:
    return ResizeRule.fixed(vision.image_size)


def _random_text(g: Geometry) -> dict[str, Any]:
    return {"mrope_section": (g.width // g.heads // 2, 0, 0)}


def _random_tower(g: Geometry) -> SiglipConfig:
    """Tiles of 7 x 7 patches of 4 pixels (tiny) or of 14, with two pixels left over, and 16 tokens a frame."""
    patch = 4 if g.tiny else 14
    side = 7 * patch + 2
    return SiglipConfig(
        depth=g.vision_layers,
        hidden_size=g.vision_width,
        intermediate_size=g.vision_hidden,
        num_heads=g.vision_heads,
        out_hidden_size=g.width,
        patch_size=patch,
        image_size=side,
        feature_layers=(g.vision_layers,),
        grid_pinpoints=default_pinpoints(side, 3),
        max_tiles=4,
    )


LLAVA_ONEVISION = Family(
    name="llava_onevision",
    architecture="LlavaOnevisionForConditionalGeneration",
    module=LlavaOnevision,
    tower_config=SiglipConfig,
    read_config=read_config,
    write_config=write_config,
    preprocessor_fields=preprocessor_fields,
    names=LLAVA_NAMES,
    layout=VisualLayout("<image>", "<video>"),
    positions="words",
    resize_rule=_resize_rule,
    capabilities=frozenset({"ask"}),
    random_text=_random_text,
    random_tower=_random_tower,
    chat_template=CHAT_TEMPLATE,
    presets=LLAVA_PRESETS,
)
FAMILIES = (LLAVA_ONEVISION,)
