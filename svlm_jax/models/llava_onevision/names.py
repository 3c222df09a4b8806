"""Tensor names of LLaVA-OneVision's published files: `language_model.model.layers.…` and `vision_tower.…`."""

from svlm_jax.models.names import DECODER_NAMES, TensorNames

_SIGLIP = "vision_tower.vision_model"

LLAVA_NAMES = TensorNames(
    rows=(
        *((f"language_model.{hub}", ours, transform) for hub, ours, transform in DECODER_NAMES),
        (f"{_SIGLIP}.embeddings.patch_embedding.*", "visual.patch_embed.*", "patches"),
        (f"{_SIGLIP}.embeddings.position_embedding.*", "visual.position.*", "same"),
        (f"{_SIGLIP}.encoder.layers.{{i}}.layer_norm1.*", "visual.blocks.{i}.norm1.*", "same"),
        (f"{_SIGLIP}.encoder.layers.{{i}}.layer_norm2.*", "visual.blocks.{i}.norm2.*", "same"),
        (f"{_SIGLIP}.encoder.layers.{{i}}.self_attn.q_proj.*", "visual.blocks.{i}.attn.q.*", "transpose"),
        (f"{_SIGLIP}.encoder.layers.{{i}}.self_attn.k_proj.*", "visual.blocks.{i}.attn.k.*", "transpose"),
        (f"{_SIGLIP}.encoder.layers.{{i}}.self_attn.v_proj.*", "visual.blocks.{i}.attn.v.*", "transpose"),
        (f"{_SIGLIP}.encoder.layers.{{i}}.self_attn.out_proj.*", "visual.blocks.{i}.attn.o.*", "transpose"),
        (f"{_SIGLIP}.encoder.layers.{{i}}.mlp.fc1.*", "visual.blocks.{i}.mlp.fc1.*", "transpose"),
        (f"{_SIGLIP}.encoder.layers.{{i}}.mlp.fc2.*", "visual.blocks.{i}.mlp.fc2.*", "transpose"),
        (f"{_SIGLIP}.post_layernorm.*", "visual.post_norm.*", "same"),
        ("multi_modal_projector.linear_1.*", "projector.fc1.*", "transpose"),
        ("multi_modal_projector.linear_2.*", "projector.fc2.*", "transpose"),
        ("image_newline", "projector.newline", "same"),
    ),
    # What transformers 5 writes nests both halves under `model.` and has no `vision_model`.
    newer={
        "model.language_model.": "language_model.model.",
        "lm_head.": "language_model.lm_head.",
        "model.vision_tower.vision_model.": f"{_SIGLIP}.",
        "model.vision_tower.": f"{_SIGLIP}.",
        f"{_SIGLIP}.": f"{_SIGLIP}.",
        "vision_tower.": f"{_SIGLIP}.",
        "model.multi_modal_projector.": "multi_modal_projector.",
        "model.image_newline": "image_newline",
    },
)
