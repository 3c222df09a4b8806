"""The vision half of Qwen3-VL, and how both halves are read from and written to its `config.json`."""

import dataclasses
import math
from typing import Any

from svlm_jax.errors import CheckpointError
from svlm_jax.host.checks import require, require_positive
from svlm_jax.models.config import ExpertsConfig, ModelConfig
from svlm_jax.models.hf_fields import Raw, read_text, rope_fields, text_fields, token_ids, write_text, write_token_ids
from svlm_jax.models.qwen2_vl.config import QwenVisionConfig, patch_fields, vision_fields

MEAN = STD = (0.5, 0.5, 0.5)  # the published processors'
MOE = "qwen3_vl_moe"


@dataclasses.dataclass(frozen=True)
class Qwen3VisionConfig(QwenVisionConfig):
    """A tower without windows, whose patches get a learned position and whose merged patches come from several depths.

    `num_position_embeddings` positions form a square that is interpolated to each picture's grid. Behind each of the blocks
    `deepstack_visual_indexes` a merger of its own makes an array that is added behind as many of the decoder's first layers.
    """

    hidden_act: str = "gelu_pytorch_tanh"  # type: ignore[assignment]  # one of its parent's
    patch_size: int = 16
    image_mean: tuple[float, ...] = MEAN
    image_std: tuple[float, ...] = STD
    num_position_embeddings: int = 2304
    deepstack_visual_indexes: tuple[int, ...] = (8, 16, 24)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "num_position_embeddings")
        require(
            self.position_side**2 == self.num_position_embeddings,
            f"num_position_embeddings is {self.num_position_embeddings}, but must be a square number.",
        )
        beyond = [i for i in self.deepstack_visual_indexes if not 0 <= i < self.depth]
        require(not beyond, f"deepstack_visual_indexes names {beyond}, but the vision tower has blocks 0 to {self.depth - 1}.")

    @property
    def position_side(self) -> int:
        """Learned positions along a side of their square."""
        return math.isqrt(self.num_position_embeddings)


def read_config(family: str, raw: Raw, preprocessor: Raw) -> ModelConfig:
    """A parsed config.json and what its processors say about pixels ({} if nothing).

    Raises CheckpointError for what is not supported, KeyError for a field that has no default.
    """
    fields, rope = text_fields(raw), rope_fields(raw)
    if not rope.get("mrope_interleaved", True):
        raise CheckpointError("config.json sets mrope_interleaved to false, which no Qwen3-VL has: expected true.")
    own = {
        "head_dim": int(fields["head_dim"]),
        "mrope_section": tuple(int(n) for n in rope["mrope_section"]),
        "mrope_interleaved": True,
        "attention_bias": bool(fields.get("attention_bias", False)),
        "qk_norm": True,
    }
    if family == MOE:
        own["experts"] = _experts(fields)
    text = read_text(raw, **own)
    vision = read_vision(raw["vision_config"], text.hidden_size, preprocessor)
    return ModelConfig(family=family, text=text, vision=vision, **token_ids(raw))


def _experts(fields: Raw) -> ExpertsConfig:
    sparse, dense = fields.get("decoder_sparse_step", 1), fields.get("mlp_only_layers") or []
    if sparse != 1 or dense:
        raise CheckpointError(
            f"config.json has decoder_sparse_step {sparse} and mlp_only_layers {list(dense)}: supported are models whose every "
            "layer has experts, 1 and []."
        )
    return ExpertsConfig(
        count=int(fields["num_local_experts"] if "num_local_experts" in fields else fields["num_experts"]),
        per_token=int(fields["num_experts_per_tok"]),
        intermediate_size=int(fields["moe_intermediate_size"]),
        balance=float(fields.get("router_aux_loss_coef", 0.001)),
    )


def read_vision(vision: Raw, text_width: int, preprocessor: Raw) -> Qwen3VisionConfig:
    """The vision half alone; fields that it lacks have the published values."""
    act = vision.get("hidden_act", "gelu_pytorch_tanh")
    if act != "gelu_pytorch_tanh":
        raise CheckpointError(f"config.json sets hidden_act {act!r} for the vision tower; supported is 'gelu_pytorch_tanh'.")
    return Qwen3VisionConfig(
        depth=int(vision["depth"]),
        hidden_size=int(vision["hidden_size"]),
        intermediate_size=int(vision["intermediate_size"]),
        num_heads=int(vision["num_heads"]),
        out_hidden_size=int(vision.get("out_hidden_size", text_width)),
        in_channels=int(vision.get("in_channels", 3)),
        patch_size=int(vision.get("patch_size", 16)),
        temporal_patch_size=int(vision.get("temporal_patch_size", 2)),
        spatial_merge_size=int(vision.get("spatial_merge_size", 2)),
        num_position_embeddings=int(vision.get("num_position_embeddings", 2304)),
        deepstack_visual_indexes=tuple(int(i) for i in vision.get("deepstack_visual_indexes", (8, 16, 24))),
        image_mean=tuple(float(x) for x in preprocessor.get("image_mean") or MEAN),
        image_std=tuple(float(x) for x in preprocessor.get("image_std") or STD),
    )


def write_config(cfg: ModelConfig) -> dict[str, Any]:
    """What `read_config` reads, but for the pixel statistics."""
    text, vision, experts = cfg.text, tower(cfg), cfg.text.experts
    fields = {
        **write_text(text),
        "model_type": f"{cfg.family}_text",
        "head_dim": text.head_dim,
        "attention_bias": text.attention_bias,
        "rope_scaling": {"mrope_interleaved": True, "mrope_section": list(text.mrope_section), "rope_type": "default"},
        # Known from generation_config.json; without these lines transformers puts in its own.
        "bos_token_id": None,
        "eos_token_id": None,
    }
    if experts is not None:
        fields |= {
            "num_experts": experts.count,
            "num_experts_per_tok": experts.per_token,
            "moe_intermediate_size": experts.intermediate_size,
            "router_aux_loss_coef": experts.balance,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
        }
    return {
        "text_config": fields,
        **write_token_ids(cfg),
        "vision_config": {
            **vision_fields(cfg.family, vision),
            "hidden_size": vision.hidden_size,
            "intermediate_size": vision.intermediate_size,
            "out_hidden_size": vision.out_hidden_size,
            "num_position_embeddings": vision.num_position_embeddings,
            "deepstack_visual_indexes": list(vision.deepstack_visual_indexes),
        },
    }


def preprocessor_fields(cfg: ModelConfig) -> dict[str, Any]:
    """preprocessor_config.json of an exported model."""
    vision = tower(cfg)
    return {
        "image_processor_type": "Qwen2VLImageProcessorFast",
        "size": {"shortest_edge": 64 * vision.cell**2, "longest_edge": 16_384 * vision.cell**2},
        **patch_fields(vision),
    }


def tower(cfg: ModelConfig) -> Qwen3VisionConfig:
    """The tower's configuration of a model that `registry.record` has checked."""
    assert isinstance(cfg.vision, Qwen3VisionConfig), "registry.record checks it"
    return cfg.vision
