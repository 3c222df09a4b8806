"""Tensor names of Qwen3-VL's published files: `model.language_model.layers.…` and `model.visual.…`."""

from svlm_jax.models.names import DECODER_NAMES, NameRow, TensorNames

_PREFIX = "model.language_model."
_DECODER: tuple[NameRow, ...] = (
    *((_PREFIX + hub[6:] if hub.startswith("model.") else hub, ours, transform) for hub, ours, transform in DECODER_NAMES),
    (f"{_PREFIX}layers.{{i}}.self_attn.q_norm.*", "decoder.layers.{i}.attn.q_norm.*", "same"),
    (f"{_PREFIX}layers.{{i}}.self_attn.k_norm.*", "decoder.layers.{i}.attn.k_norm.*", "same"),
)
_EXPERTS: tuple[NameRow, ...] = (
    (f"{_PREFIX}layers.{{i}}.mlp.gate.*", "decoder.layers.{i}.mlp.router.*", "transpose"),
    (f"{_PREFIX}layers.{{i}}.mlp.experts.gate_up_proj", "decoder.layers.{i}.mlp.experts.gate_up", "experts"),
    (f"{_PREFIX}layers.{{i}}.mlp.experts.down_proj", "decoder.layers.{i}.mlp.experts.down", "experts"),
)
_TOWER: tuple[NameRow, ...] = (
    ("model.visual.patch_embed.proj.*", "visual.patch_embed.*", "patches"),
    ("model.visual.pos_embed.*", "visual.position.*", "same"),
    ("model.visual.blocks.{i}.norm1.*", "visual.blocks.{i}.norm1.*", "same"),
    ("model.visual.blocks.{i}.norm2.*", "visual.blocks.{i}.norm2.*", "same"),
    ("model.visual.blocks.{i}.attn.qkv.*", "visual.blocks.{i}.attn.qkv.*", "transpose"),
    ("model.visual.blocks.{i}.attn.proj.*", "visual.blocks.{i}.attn.proj.*", "transpose"),
    ("model.visual.blocks.{i}.mlp.linear_fc1.*", "visual.blocks.{i}.mlp.fc1.*", "transpose"),
    ("model.visual.blocks.{i}.mlp.linear_fc2.*", "visual.blocks.{i}.mlp.fc2.*", "transpose"),
    ("model.visual.merger.norm.*", "visual.merger.norm.*", "same"),
    ("model.visual.merger.linear_fc1.*", "visual.merger.mlp.fc1.*", "transpose"),
    ("model.visual.merger.linear_fc2.*", "visual.merger.mlp.fc2.*", "transpose"),
    ("model.visual.deepstack_merger_list.{i}.norm.*", "visual.deepstack.{i}.norm.*", "same"),
    ("model.visual.deepstack_merger_list.{i}.linear_fc1.*", "visual.deepstack.{i}.mlp.fc1.*", "transpose"),
    ("model.visual.deepstack_merger_list.{i}.linear_fc2.*", "visual.deepstack.{i}.mlp.fc2.*", "transpose"),
)

QWEN3_VL_NAMES = TensorNames((*_DECODER, *_TOWER), {})
QWEN3_VL_MOE_NAMES = TensorNames((*_DECODER, *_EXPERTS, *_TOWER), {})
