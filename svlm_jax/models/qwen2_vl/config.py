"""The vision half of Qwen2-VL and Qwen2.5-VL, and how both halves are read from and written to their `config.json`."""

import dataclasses
import math
from typing import Any, Literal

from svlm_jax.errors import CheckpointError, ConfigError
from svlm_jax.host.checks import require, require_positive, require_statistics
from svlm_jax.models.config import ClipGrid, ModelConfig
from svlm_jax.models.hf_fields import Raw, read_text, rope_fields, token_ids, write_text, write_token_ids

# What CLIP's images were normalised with: the default of every processor of these families.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclasses.dataclass(frozen=True)
class QwenVisionConfig:
    """The vision tower, from pixels to embeddings of the decoder's width.

    `window_size` is in pixels a side (0: every block attends within its whole temporal grid); `fullatt_block_indexes` are
    the blocks that ignore the windows. `tokens_per_second` is how far one second moves the temporal position; None means
    that the position counts temporal grids (Qwen2-VL). `image_mean` and `image_std` normalise pixels scaled to [0, 1].
    """

    depth: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    out_hidden_size: int
    hidden_act: Literal["silu", "quick_gelu", "gelu_pytorch_tanh"] = "silu"
    in_channels: int = 3
    patch_size: int = 14
    temporal_patch_size: int = 2
    spatial_merge_size: int = 2
    window_size: int = 0
    fullatt_block_indexes: tuple[int, ...] = ()
    tokens_per_second: float | None = None
    image_mean: tuple[float, ...] = CLIP_MEAN
    image_std: tuple[float, ...] = CLIP_STD

    def __post_init__(self) -> None:
        require_positive(self, "depth", "hidden_size", "intermediate_size", "num_heads", "out_hidden_size", "in_channels")
        require_positive(self, "patch_size", "temporal_patch_size", "spatial_merge_size")
        require(
            self.hidden_size % (4 * self.num_heads) == 0,
            f"the vision tower's width {self.hidden_size} must be a multiple of 4 x num_heads {self.num_heads}, "
            "because rows and columns each rotate half of a head in pairs.",
        )
        require(
            self.window_size == 0 or self.window_size >= self.cell,
            f"window_size is {self.window_size} pixels, but must be 0 or at least one merged cell, {self.cell} pixels.",
        )
        beyond = [i for i in self.fullatt_block_indexes if not 0 <= i < self.depth]
        require(not beyond, f"fullatt_block_indexes names {beyond}, but the vision tower has blocks 0 to {self.depth - 1}.")
        require(
            self.tokens_per_second is None or self.tokens_per_second > 0,
            f"tokens_per_second is {self.tokens_per_second}, but must be positive.",
        )
        require_statistics(self)

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def cell(self) -> int:
        """Pixels along a side of one merged cell, which becomes one token."""
        return self.patch_size * self.spatial_merge_size

    @property
    def patch_shape(self) -> tuple[int, int, int, int]:
        """Channels, frames, rows and columns of one patch."""
        return self.in_channels, self.temporal_patch_size, self.patch_size, self.patch_size

    @property
    def patch_values(self) -> int:
        """Numbers in one flattened patch."""
        return math.prod(self.patch_shape)

    @property
    def grid_frames(self) -> int:
        """Frames that share one temporal grid."""
        return self.temporal_patch_size

    def clip_grid(self, frames: int, height: int, width: int, fps: float) -> ClipGrid:
        """The grid of a clip of frames at `fps`; ConfigError when frames or sides do not split into merged patches."""
        cell, pair = self.cell, self.temporal_patch_size
        if frames % pair or height % cell or width % cell:
            raise ConfigError(
                f"a clip of {frames} frames of {height}x{width} pixels: expected a multiple of {pair} frames, and sides that "
                f"are multiples of {cell}"
            )
        step = self.tokens_per_second * pair / fps if self.tokens_per_second else 1.0
        return ClipGrid(frames // pair, height // cell, width // cell, step)

    def clip_tokens(self, frames: int, height: int, width: int) -> int:
        """Tokens of a clip whose sides and frames split into merged patches."""
        return frames // self.temporal_patch_size * (height // self.cell) * (width // self.cell)

    def clip_patches(self, tokens: int) -> int:
        """Patches that the tower looks at for so many tokens of video."""
        return tokens * self.spatial_merge_size**2

    def clip_pairs(self, frames: int, height: int, width: int) -> int:
        """Pairs of patches in the blocks that look at whole pictures; windows are too small to count."""
        blocks = len(self.fullatt_block_indexes) if self.window_size else self.depth
        grids = frames // self.temporal_patch_size
        return blocks * grids * ((height // self.patch_size) * (width // self.patch_size)) ** 2


def read_config(family: str, raw: Raw, preprocessor: Raw) -> ModelConfig:
    """A parsed config.json, flat (hub files of 2024) or nested, and preprocessor_config.json ({} if there is none).

    Raises CheckpointError for what is not supported, KeyError for a field that has no default.
    """
    section = tuple(int(n) for n in rope_fields(raw)["mrope_section"])
    text = read_text(raw, mrope_section=section)
    vision = read_vision(family, raw["vision_config"], text.hidden_size, preprocessor)
    return ModelConfig(family=family, text=text, vision=vision, **token_ids(raw))


def read_vision(family: str, vision: Raw, text_width: int, preprocessor: Raw) -> QwenVisionConfig:
    """The vision half alone; fields that it lacks have the published values."""
    shared: dict[str, Any] = {
        "depth": int(vision["depth"]),
        "num_heads": int(vision["num_heads"]),
        "in_channels": int(vision.get("in_channels", vision.get("in_chans", 3))),
        "patch_size": int(vision.get("patch_size", 14)),
        "temporal_patch_size": int(vision.get("temporal_patch_size", 2)),
        "spatial_merge_size": int(vision.get("spatial_merge_size", 2)),
        "image_mean": tuple(float(x) for x in preprocessor.get("image_mean") or CLIP_MEAN),
        "image_std": tuple(float(x) for x in preprocessor.get("image_std") or CLIP_STD),
    }
    expected = "silu" if family == "qwen2_5_vl" else "quick_gelu"
    act = vision.get("hidden_act", expected)
    if act != expected:
        raise CheckpointError(
            f"config.json sets hidden_act {act!r} for the vision tower of {family}; supported is {expected!r}."
        )
    if family == "qwen2_vl":
        width = int(vision["embed_dim"])
        return QwenVisionConfig(
            hidden_size=width,
            intermediate_size=math.floor(width * vision.get("mlp_ratio", 4)),
            out_hidden_size=int(vision.get("hidden_size", text_width)),
            hidden_act="quick_gelu",
            **shared,
        )
    return QwenVisionConfig(
        hidden_size=int(vision["hidden_size"]),
        intermediate_size=int(vision["intermediate_size"]),
        out_hidden_size=int(vision.get("out_hidden_size", text_width)),
        window_size=int(vision.get("window_size", 112)),
        fullatt_block_indexes=tuple(int(i) for i in vision.get("fullatt_block_indexes", (7, 15, 23, 31))),
        tokens_per_second=float(vision.get("tokens_per_second", 4)),
        **shared,
    )


def write_config(cfg: ModelConfig) -> dict[str, Any]:
    """What `read_config` reads, but for the pixel statistics. Flat text fields, as on the hub."""
    return {
        **write_text(cfg.text),
        "rope_scaling": {"mrope_section": list(cfg.text.mrope_section), "rope_type": "default", "type": "default"},
        **write_token_ids(cfg),
        "vision_config": write_vision(cfg),
    }


def write_vision(cfg: ModelConfig) -> dict[str, Any]:
    """The vision half of config.json; the two families name some of it differently."""
    vision = tower(cfg)
    shared = vision_fields(cfg.family, vision)
    if cfg.family == "qwen2_vl":
        ratio = vision.intermediate_size / vision.hidden_size
        return {
            **shared,
            "embed_dim": vision.hidden_size,
            "hidden_size": vision.out_hidden_size,
            "mlp_ratio": int(ratio) if ratio.is_integer() else ratio,
        }
    seconds = vision.tokens_per_second
    return {
        **shared,
        "hidden_size": vision.hidden_size,
        "intermediate_size": vision.intermediate_size,
        "out_hidden_size": vision.out_hidden_size,
        "window_size": vision.window_size,
        "fullatt_block_indexes": list(vision.fullatt_block_indexes),
        "tokens_per_second": int(seconds) if seconds is not None and seconds.is_integer() else seconds,
    }


def vision_fields(family: str, vision: QwenVisionConfig) -> dict[str, Any]:
    """What every Qwen tower's config.json names alike."""
    return {
        "model_type": family,
        "depth": vision.depth,
        "num_heads": vision.num_heads,
        "hidden_act": vision.hidden_act,
        "in_channels": vision.in_channels,
        "patch_size": vision.patch_size,
        "temporal_patch_size": vision.temporal_patch_size,
        "spatial_merge_size": vision.spatial_merge_size,
    }


def preprocessor_fields(cfg: ModelConfig) -> dict[str, Any]:
    """preprocessor_config.json of an exported model."""
    vision = tower(cfg)
    return {
        "image_processor_type": "Qwen2VLImageProcessor",
        "min_pixels": 4 * vision.cell**2,
        "max_pixels": 16_384 * vision.cell**2,
        **patch_fields(vision),
    }


def patch_fields(vision: QwenVisionConfig) -> dict[str, Any]:
    """What every Qwen tower's preprocessor_config.json says about patches and their normalisation."""
    return {
        "patch_size": vision.patch_size,
        "temporal_patch_size": vision.temporal_patch_size,
        "merge_size": vision.spatial_merge_size,
        "image_mean": list(vision.image_mean),
        "image_std": list(vision.image_std),
    }


def tower(cfg: ModelConfig) -> QwenVisionConfig:
    """The tower's configuration of a model that `registry.record` has checked."""
    assert isinstance(cfg.vision, QwenVisionConfig), "registry.record checks it"
    return cfg.vision
