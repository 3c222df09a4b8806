"""Tensor names of Qwen2-VL's and Qwen2.5-VL's published files: `model.layers.…` and `visual.…`."""

from svlm_jax.models.names import DECODER_NAMES, NameRow, TensorNames

_TOWER: tuple[NameRow, ...] = (
    ("visual.patch_embed.proj.*", "visual.patch_embed.*", "patches"),
    ("visual.blocks.{i}.norm1.*", "visual.blocks.{i}.norm1.*", "same"),
    ("visual.blocks.{i}.norm2.*", "visual.blocks.{i}.norm2.*", "same"),
    ("visual.blocks.{i}.attn.qkv.*", "visual.blocks.{i}.attn.qkv.*", "transpose"),
    ("visual.blocks.{i}.attn.proj.*", "visual.blocks.{i}.attn.proj.*", "transpose"),
    ("visual.merger.ln_q.*", "visual.merger.norm.*", "same"),
    ("visual.merger.mlp.0.*", "visual.merger.mlp.fc1.*", "transpose"),
    ("visual.merger.mlp.2.*", "visual.merger.mlp.fc2.*", "transpose"),
)
_SWIGLU: tuple[NameRow, ...] = (
    ("visual.blocks.{i}.mlp.gate_proj.*", "visual.blocks.{i}.mlp.gate_up.*", "transpose"),
    ("visual.blocks.{i}.mlp.up_proj.*", "visual.blocks.{i}.mlp.gate_up.*", "transpose"),
    ("visual.blocks.{i}.mlp.down_proj.*", "visual.blocks.{i}.mlp.down.*", "transpose"),
)
_MLP: tuple[NameRow, ...] = (
    ("visual.blocks.{i}.mlp.fc1.*", "visual.blocks.{i}.mlp.fc1.*", "transpose"),
    ("visual.blocks.{i}.mlp.fc2.*", "visual.blocks.{i}.mlp.fc2.*", "transpose"),
)
# Newer files nest both halves under `model.`.
NESTED = {"model.language_model.": "model.", "model.visual.": "visual."}

QWEN2_5_VL_NAMES = TensorNames((*DECODER_NAMES, *_TOWER, *_SWIGLU), NESTED)
QWEN2_VL_NAMES = TensorNames((*DECODER_NAMES, *_TOWER, *_MLP), NESTED)
