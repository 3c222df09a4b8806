"""The vision half of LLaVA-OneVision: SigLIP's tower, the projector behind it, and the tiles that an image is cut into.

Both halves are read from and written to the `config.json` of `LlavaOnevisionForConditionalGeneration`.
"""

import dataclasses
import math
import re
from typing import Any, Literal, get_args

from svlm_jax.errors import CheckpointError, ConfigError
from svlm_jax.host.checks import require, require_positive, require_statistics
from svlm_jax.models.config import ClipGrid, ModelConfig
from svlm_jax.models.hf_fields import Raw, read_text, text_fields, write_text

Activation = Literal["gelu", "gelu_pytorch_tanh"]  # x · Φ(x), and its approximation by tanh

# What SigLIP's images were normalised with; the processors of LLaVA-OneVision on the hub say the same.
SIGLIP_MEAN = SIGLIP_STD = (0.5, 0.5, 0.5)
ASPECT = "anyres_max_"


def default_pinpoints(side: int = 384, most: int = 6) -> tuple[tuple[int, int], ...]:
    """(height, width) of every canvas of 1 x 1 to `most` x `most` tiles."""
    return tuple((rows * side, columns * side) for rows in range(1, most + 1) for columns in range(1, most + 1))


@dataclasses.dataclass(frozen=True)
class SiglipConfig:
    """The tower takes square pictures of `image_size` pixels; a two-layer projector maps their patches to the decoder's width.

    `feature_layers` are the hidden states that the projector gets, side by side: state 0 is the embedded patches, state i
    what block i gave; the norm behind the last block is not applied. A single image is laid on the best of the canvases
    `grid_pinpoints` (height, width), cut into tiles, and kept to about `max_tiles` tiles' worth of tokens.
    """

    depth: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    out_hidden_size: int
    hidden_act: Activation = "gelu_pytorch_tanh"
    in_channels: int = 3
    patch_size: int = 14
    image_size: int = 384
    layer_norm_eps: float = 1e-6
    feature_layers: tuple[int, ...] = (26,)
    projector_act: Activation = "gelu"
    projector_bias: bool = True
    grid_pinpoints: tuple[tuple[int, int], ...] = default_pinpoints()
    max_tiles: int = 9
    image_mean: tuple[float, ...] = SIGLIP_MEAN
    image_std: tuple[float, ...] = SIGLIP_STD

    def __post_init__(self) -> None:
        require_positive(self, "depth", "hidden_size", "intermediate_size", "num_heads", "out_hidden_size", "in_channels")
        require_positive(self, "patch_size", "image_size", "layer_norm_eps", "max_tiles")
        require(
            self.hidden_size % self.num_heads == 0,
            f"the vision tower's width {self.hidden_size} must be a multiple of its num_attention_heads {self.num_heads}.",
        )
        require(
            self.patch_size <= self.image_size,
            f"patch_size is {self.patch_size} pixels, but a picture has only {self.image_size} pixels a side.",
        )
        beyond = [i for i in self.feature_layers if not 0 <= i <= self.depth]
        require(
            bool(self.feature_layers) and not beyond,
            f"vision_feature_layer names the hidden states {beyond}, but a tower of {self.depth} blocks has 0 to {self.depth}.",
        )
        uncut = [point for point in self.grid_pinpoints if min(point) < 1 or any(side % self.image_size for side in point)]
        require(
            bool(self.grid_pinpoints) and not uncut,
            f"image_grid_pinpoints has {[list(point) for point in uncut]}, expected canvases that split into tiles of "
            f"{self.image_size} x {self.image_size} pixels.",
        )
        for name in ("hidden_act", "projector_act"):
            value = getattr(self, name)
            require(value in get_args(Activation), f"{name} is {value!r}, expected one of {', '.join(get_args(Activation))}.")
        require_statistics(self)

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def patch_shape(self) -> tuple[int, int, int]:
        """Channels, rows and columns of one patch."""
        return self.in_channels, self.patch_size, self.patch_size

    @property
    def patch_values(self) -> int:
        """Numbers in one flattened patch."""
        return math.prod(self.patch_shape)

    @property
    def grid_frames(self) -> int:
        """Frames that share one temporal grid."""
        return 1

    @property
    def side(self) -> int:
        """Patches along a side of a tile; pixels beyond the last whole patch are not seen."""
        return self.image_size // self.patch_size

    @property
    def pooled_side(self) -> int:
        """Tokens along a side of a video's frame."""
        return -(-self.side // 2)

    def clip_grid(self, frames: int, height: int, width: int, fps: float) -> ClipGrid:
        """The grid of a clip, whose tokens are numbered like words; ConfigError unless its frames are one tile each."""
        if (height, width) != (self.image_size,) * 2:
            side = self.image_size
            raise ConfigError(f"frames of {height}x{width} pixels: expected {side}x{side}, one tile of the model")
        return ClipGrid(frames, 1, self.pooled_side**2, 0.0)

    def clip_tokens(self, frames: int, height: int, width: int) -> int:
        """Tokens of a clip, whatever the size of its frames: they are resized to one tile."""
        return frames * self.pooled_side**2

    def clip_patches(self, tokens: int) -> int:
        """Patches that the tower looks at for so many tokens of video."""
        return tokens // self.pooled_side**2 * self.side**2

    def clip_pairs(self, frames: int, height: int, width: int) -> int:
        """Pairs of patches that attend to each other, over all blocks."""
        return self.depth * frames * self.side**4


def read_config(family: str, raw: Raw, preprocessor: Raw) -> ModelConfig:
    """A parsed config.json and preprocessor_config.json ({} if there is none).

    Raises CheckpointError for what is not supported, KeyError for a field that has no default.
    """
    fields = text_fields(raw)
    # Published files leave out what equals the defaults of Qwen2. Positions have one axis.
    half = int(fields["hidden_size"]) // int(fields["num_attention_heads"]) // 2
    text = read_text({"rms_norm_eps": 1e-6, **raw}, mrope_section=(half, 0, 0))
    # Called "index" in every published file.
    names = {"image_token_id": ("image_token_index", 151646), "video_token_id": ("video_token_index", 151647)}
    ids = {name: int(raw.get(index, raw.get(name, default))) for name, (index, default) in names.items()}
    return ModelConfig(
        family=family,
        text=text,
        vision=read_vision(raw, text.hidden_size, preprocessor),
        vision_start_token_id=None,
        vision_end_token_id=None,
        **ids,
    )


def write_config(cfg: ModelConfig) -> dict[str, Any]:
    """What `read_config` reads, but for the pixel statistics."""
    return {
        # Known from generation_config.json; without these lines transformers puts in its own.
        "text_config": {**write_text(cfg.text), "model_type": "qwen2", "bos_token_id": None, "eos_token_id": None},
        "image_token_index": cfg.image_token_id,
        "video_token_index": cfg.video_token_id,
        **write_vision(tower(cfg)),
    }


def preprocessor_fields(cfg: ModelConfig) -> dict[str, Any]:
    """preprocessor_config.json of an exported model."""
    vision = tower(cfg)
    return {
        "image_processor_type": "LlavaOnevisionImageProcessor",
        "size": {"height": vision.image_size, "width": vision.image_size},
        "image_grid_pinpoints": [list(point) for point in vision.grid_pinpoints],
        "image_mean": list(vision.image_mean),
        "image_std": list(vision.image_std),
    }


def tower(cfg: ModelConfig) -> SiglipConfig:
    """The tower's configuration of a model that `registry.record` has checked."""
    assert isinstance(cfg.vision, SiglipConfig), "registry.record checks it"
    return cfg.vision


def read_vision(raw: Raw, text_width: int, preprocessor: Raw) -> SiglipConfig:
    """The vision half of a parsed config.json; fields that it lacks have the defaults of `transformers`.

    Raises CheckpointError for what is not supported, KeyError for a field that has no default.
    """
    vision = raw["vision_config"]
    kind = vision.get("model_type", "siglip_vision_model")
    if kind != "siglip_vision_model":
        raise CheckpointError(f"config.json has a vision tower {kind!r}; supported is 'siglip_vision_model'.")
    if vision.get("vision_use_head", True):
        raise CheckpointError("config.json sets vision_use_head, whose pooling LLaVA-OneVision does not use: expected false.")
    if raw.get("vision_feature_select_strategy", "full") != "full":
        raise CheckpointError(
            f"config.json sets vision_feature_select_strategy {raw['vision_feature_select_strategy']!r}; supported is 'full', "
            "because SigLIP has no class token to drop."
        )
    aspect = raw.get("vision_aspect_ratio", f"{ASPECT}9")
    if not re.fullmatch(rf"{ASPECT}[0-9]{{1,4}}", aspect):
        raise CheckpointError(f"config.json sets vision_aspect_ratio {aspect!r}; supported is {ASPECT!r} and a number.")
    depth = int(vision["num_hidden_layers"])
    layers = raw.get("vision_feature_layer", -1)
    layers = [layers] if isinstance(layers, int) else layers
    pinpoints = raw.get("image_grid_pinpoints")
    return SiglipConfig(
        depth=depth,
        hidden_size=int(vision["hidden_size"]),
        intermediate_size=int(vision["intermediate_size"]),
        num_heads=int(vision["num_attention_heads"]),
        out_hidden_size=text_width,
        hidden_act=vision.get("hidden_act", "gelu_pytorch_tanh"),
        in_channels=int(vision.get("num_channels", 3)),
        patch_size=int(vision["patch_size"]),
        image_size=int(vision["image_size"]),
        layer_norm_eps=float(vision.get("layer_norm_eps", 1e-6)),
        feature_layers=tuple(int(i) if i >= 0 else depth + 1 + int(i) for i in layers),
        projector_act=raw.get("projector_hidden_act", "gelu"),
        projector_bias=bool(raw.get("multimodal_projector_bias", True)),
        grid_pinpoints=default_pinpoints() if pinpoints is None else tuple((int(h), int(w)) for h, w in pinpoints),
        max_tiles=int(aspect.removeprefix(ASPECT)),
        image_mean=tuple(float(x) for x in preprocessor.get("image_mean") or SIGLIP_MEAN),
        image_std=tuple(float(x) for x in preprocessor.get("image_std") or SIGLIP_STD),
    )


def write_vision(cfg: SiglipConfig) -> dict[str, Any]:
    """The fields of config.json that `read_vision` reads, but for the pixel statistics."""
    layers = [i - cfg.depth - 1 for i in cfg.feature_layers]
    return {
        "vision_config": {
            "model_type": "siglip_vision_model",
            "num_hidden_layers": cfg.depth,
            "hidden_size": cfg.hidden_size,
            "intermediate_size": cfg.intermediate_size,
            "num_attention_heads": cfg.num_heads,
            "num_channels": cfg.in_channels,
            "image_size": cfg.image_size,
            "patch_size": cfg.patch_size,
            "hidden_act": cfg.hidden_act,
            "layer_norm_eps": cfg.layer_norm_eps,
            "vision_use_head": False,
        },
        "projector_hidden_act": cfg.projector_act,
        "multimodal_projector_bias": cfg.projector_bias,
        "vision_feature_layer": layers[0] if len(layers) == 1 else layers,
        "vision_feature_select_strategy": "full",
        "vision_aspect_ratio": f"{ASPECT}{cfg.max_tiles}",
        "image_grid_pinpoints": [list(point) for point in cfg.grid_pinpoints],
    }
