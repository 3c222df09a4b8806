"""What a model is: frozen, hashable dataclasses, checked when they are made and read from a Hugging Face `config.json`."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from svlm_jax.cache.kv import KVShape
from svlm_jax.errors import CheckpointError, ConfigError
from svlm_jax.host.checks import require, require_positive, require_statistics
from svlm_jax.host.json_files import read_object
from svlm_jax.models.hf_schema import checked_config, read_processor
from svlm_jax.models.llava_onevision import config as config_siglip
from svlm_jax.models.llava_onevision.config import SiglipConfig

Family = Literal["qwen2_5_vl", "qwen2_vl", "llava_onevision"]
Raw = Mapping[str, Any]

ARCHITECTURES: dict[Family, str] = {
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
    "qwen2_vl": "Qwen2VLForConditionalGeneration",
    "llava_onevision": "LlavaOnevisionForConditionalGeneration",
}
# What CLIP's images were normalised with: the default of every Qwen-VL processor.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """The decoder: `num_layers` blocks of grouped-query attention and SwiGLU over a width of `hidden_size`.

    `mrope_section` says how many rotary frequencies follow the (t, h, w) axis of a position; they sum to head_dim / 2. Models
    with one axis (LLaVA-OneVision) have them all on the first.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    mrope_section: tuple[int, int, int]
    rope_theta: float = 1_000_000.0
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = False
    max_position_embeddings: int = 32_768

    def __post_init__(self) -> None:
        require_positive(self, "vocab_size", "hidden_size", "intermediate_size", "num_layers", "num_heads", "num_kv_heads")
        require_positive(self, "head_dim", "rope_theta", "rms_norm_eps", "max_position_embeddings")
        require(
            self.num_heads % self.num_kv_heads == 0,
            f"num_attention_heads is {self.num_heads}, but must be a multiple of num_key_value_heads {self.num_kv_heads}.",
        )
        require(self.head_dim % 2 == 0, f"the head dimension is {self.head_dim}, but rotary embeddings need an even one.")
        require(
            len(self.mrope_section) == 3 and min(self.mrope_section) >= 0 and sum(self.mrope_section) == self.head_dim // 2,
            f"mrope_section is {list(self.mrope_section)}, but must be three counts that sum to half the head dimension, "
            f"{self.head_dim // 2}.",
        )

    @property
    def kv_shape(self) -> KVShape:
        """What a token takes in a cache of this decoder."""
        return KVShape(self.num_layers, self.num_kv_heads, self.head_dim)

    @property
    def mlp_groups(self) -> int:
        """Blocks in which the columns of gate and up alternate in their common weight: eight, for up to eight devices."""
        return math.gcd(self.intermediate_size, 8)


@dataclasses.dataclass(frozen=True)
class VisionConfig:
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
    hidden_act: Literal["silu", "quick_gelu"] = "silu"
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
        cell = self.patch_size * self.spatial_merge_size
        require(
            self.window_size == 0 or self.window_size >= cell,
            f"window_size is {self.window_size} pixels, but must be 0 or at least one merged cell, {cell} pixels.",
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
    def patch_values(self) -> int:
        """Numbers in one flattened patch: channels x frames x rows x columns."""
        return self.in_channels * self.temporal_patch_size * self.patch_size**2

    def clip_tokens(self, frames: int, height: int, width: int) -> int:
        """Tokens of a clip whose sides and frames split into merged patches."""
        cell = self.patch_size * self.spatial_merge_size
        return frames // self.temporal_patch_size * (height // cell) * (width // cell)

    def clip_patches(self, tokens: int) -> int:
        """Patches that the tower looks at for so many tokens of video."""
        return tokens * self.spatial_merge_size**2


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A whole vision-language model; hashable, so that it can be a static argument of `jax.jit`.

    Families without marks around their visuals (LLaVA-OneVision) have None for `vision_start_token_id` and its end.
    """

    family: Family
    text: TextConfig
    vision: VisionConfig | SiglipConfig
    image_token_id: int = 151655
    video_token_id: int = 151656
    vision_start_token_id: int | None = 151652
    vision_end_token_id: int | None = 151653

    def __post_init__(self) -> None:
        require(self.family in get_args(Family), f"the model family is {self.family!r}, expected one of {get_args(Family)}.")
        siglip = self.family == "llava_onevision"
        require(
            isinstance(self.vision, SiglipConfig) == siglip,
            f"the vision tower is a {type(self.vision).__name__}, but the family {self.family} needs a "
            f"{(SiglipConfig if siglip else VisionConfig).__name__}.",
        )
        require(
            self.vision.out_hidden_size == self.text.hidden_size,
            f"the vision tower gives embeddings of width {self.vision.out_hidden_size}, "
            f"but the decoder needs its own width {self.text.hidden_size}.",
        )
        for name in ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"):
            value = getattr(self, name)
            require(
                value is None or 0 <= value < self.text.vocab_size,
                f"{name} is {value}, but the vocabulary has ids 0 to {self.text.vocab_size - 1}.",
            )

    @property
    def qwen_vision(self) -> VisionConfig:
        """The tower's configuration, for what works with Qwen's towers alone; ConfigError for the other families."""
        if not isinstance(self.vision, VisionConfig):
            raise ConfigError(f"this works with Qwen2-VL and Qwen2.5-VL alone, but the model is a {self.family}.")
        return self.vision

    @classmethod
    def from_hf(cls, source: Raw | str | Path) -> "ModelConfig":
        """Reads a parsed `config.json`, or the one in a folder together with its `preprocessor_config.json`, if any.

        Understands the flat layout of older hub files and the nested one of newer ones. Raises CheckpointError when the
        file is absent, unreadable, lacks a field or names an unsupported architecture, ConfigError for values that cannot
        work.
        """
        if isinstance(source, Mapping):
            return _from_raw(checked_config(source), {})
        folder = Path(source)
        if not (folder / "config.json").is_file():
            raise CheckpointError(f"{folder} is no checkpoint: it holds {_instead(folder)}.")
        return _from_raw(checked_config(read_object(folder / "config.json", CheckpointError)), read_processor(folder))

    def to_hf(self) -> dict[str, Any]:
        """The `config.json` of this model, such that `from_hf(to_hf())` gives it back (but for the pixel statistics)."""
        return _to_raw(self)


def _instead(folder: Path) -> str:
    if (folder / "adapter_config.json").is_file():
        return "an adapter (adapter_config.json), not a whole model: expected the model that it was merged into"
    return "no config.json"


# ------------------------------------------------------------------ reading config.json


def _from_raw(raw: Raw, preprocessor: Raw) -> ModelConfig:
    family = _family(raw)
    # Hub files of 2024 are flat; those of 2025 are flat and repeat the fields in text_config; newer ones only nest.
    text = {**raw, **raw["text_config"]} if isinstance(raw.get("text_config"), Mapping) else raw
    if not isinstance(raw.get("vision_config"), Mapping):
        raise CheckpointError("config.json has no vision_config, so it describes no vision-language model.")
    try:
        text_config = _text_config(family, text, raw)
        if family == "llava_onevision":
            vision: VisionConfig | SiglipConfig = config_siglip.read(raw, text_config.hidden_size, preprocessor)
        else:
            vision = _vision_config(family, raw["vision_config"], text_config.hidden_size, preprocessor)
        return ModelConfig(family=family, text=text_config, vision=vision, **_token_ids(family, raw))
    except KeyError as error:
        raise CheckpointError(f"config.json lacks the field {error.args[0]!r}.") from error
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"config.json has a field of the wrong type: {error}.") from error


def _family(raw: Raw) -> Family:
    for family, architecture in ARCHITECTURES.items():
        if raw.get("model_type") == family or architecture in (raw.get("architectures") or []):
            return family
    named = ", ".join(raw.get("architectures") or []) or raw.get("model_type") or "none named"
    raise CheckpointError(
        f"the architecture of the checkpoint ({named}) is not supported; supported are {', '.join(ARCHITECTURES.values())}."
    )


def _token_ids(family: Family, raw: Raw) -> dict[str, Any]:
    if family == "llava_onevision":
        # Called "index" in every published file.
        names = {"image_token_id": ("image_token_index", 151646), "video_token_id": ("video_token_index", 151647)}
        ids = {name: int(raw.get(index, raw.get(name, default))) for name, (index, default) in names.items()}
        return {**ids, "vision_start_token_id": None, "vision_end_token_id": None}
    defaults = {"image_token_id": 151655, "video_token_id": 151656, "vision_start_token_id": 151652}
    defaults["vision_end_token_id"] = 151653
    return {name: int(raw.get(name, default)) for name, default in defaults.items()}


def _text_config(family: Family, text: Raw, raw: Raw) -> TextConfig:
    rope = {"rope_theta": text.get("rope_theta"), **(text.get("rope_scaling") or {}), **(text.get("rope_parameters") or {})}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "mrope"):
        raise CheckpointError(f"config.json asks for rope_type {kind!r}; supported are 'default' and 'mrope'.")
    if text.get("use_sliding_window"):
        raise CheckpointError("config.json sets use_sliding_window, which is not supported.")
    if text.get("hidden_act", "silu") != "silu":
        raise CheckpointError(f"config.json sets hidden_act {text['hidden_act']!r} for the decoder; supported is 'silu'.")
    heads, width = int(text["num_attention_heads"]), int(text["hidden_size"])
    require(width % heads == 0, f"the decoder's width {width} is no multiple of its num_attention_heads {heads}.")
    if family == "llava_onevision":
        # Positions of one axis; the published files leave out what equals the defaults of Qwen2.
        section: tuple[int, ...] = (width // heads // 2, 0, 0)
        text = {"rms_norm_eps": 1e-6, **text}
    else:
        section = tuple(int(n) for n in rope["mrope_section"])
    return TextConfig(
        vocab_size=int(text["vocab_size"]),
        hidden_size=width,
        intermediate_size=int(text["intermediate_size"]),
        num_layers=int(text["num_hidden_layers"]),
        num_heads=heads,
        num_kv_heads=int(text.get("num_key_value_heads") or heads),
        head_dim=width // heads,
        mrope_section=section,  # type: ignore[arg-type]  # its length is checked by TextConfig
        rope_theta=float(rope["rope_theta"] or 1_000_000.0),
        rms_norm_eps=float(text["rms_norm_eps"]),
        tie_word_embeddings=raw["tie_word_embeddings"],
        max_position_embeddings=int(text.get("max_position_embeddings", 32_768)),
    )


def _vision_config(family: Family, vision: Raw, text_width: int, preprocessor: Raw) -> VisionConfig:
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
    act = vision.get("hidden_act", "silu" if family == "qwen2_5_vl" else "quick_gelu")
    expected = "silu" if family == "qwen2_5_vl" else "quick_gelu"
    if act != expected:
        raise CheckpointError(
            f"config.json sets hidden_act {act!r} for the vision tower of {family}; supported is {expected!r}."
        )
    if family == "qwen2_vl":
        width = int(vision["embed_dim"])
        return VisionConfig(
            hidden_size=width,
            intermediate_size=math.floor(width * vision.get("mlp_ratio", 4)),
            out_hidden_size=int(vision.get("hidden_size", text_width)),
            hidden_act="quick_gelu",
            **shared,
        )
    return VisionConfig(
        hidden_size=int(vision["hidden_size"]),
        intermediate_size=int(vision["intermediate_size"]),
        out_hidden_size=int(vision.get("out_hidden_size", text_width)),
        window_size=int(vision.get("window_size", 112)),
        fullatt_block_indexes=tuple(int(i) for i in vision.get("fullatt_block_indexes", (7, 15, 23, 31))),
        tokens_per_second=float(vision.get("tokens_per_second", 4)),
        **shared,
    )


# ------------------------------------------------------------------ writing config.json


def _to_raw(cfg: ModelConfig) -> dict[str, Any]:
    named = {
        "architectures": [ARCHITECTURES[cfg.family]],
        "model_type": cfg.family,
        # Known from generation_config.json; without these lines transformers puts in its own.
        "bos_token_id": None,
        "eos_token_id": None,
        "tie_word_embeddings": cfg.text.tie_word_embeddings,
    }
    if isinstance(cfg.vision, SiglipConfig):
        return {
            **named,
            "text_config": {**_text_fields(cfg.text), "model_type": "qwen2", "bos_token_id": None, "eos_token_id": None},
            "image_token_index": cfg.image_token_id,
            "video_token_index": cfg.video_token_id,
            **config_siglip.write(cfg.vision),
        }
    # Flat text fields, as on the hub: every version of transformers reads them.
    return {
        **named,
        **_text_fields(cfg.text),
        "rope_scaling": {"mrope_section": list(cfg.text.mrope_section), "rope_type": "default", "type": "default"},
        "image_token_id": cfg.image_token_id,
        "video_token_id": cfg.video_token_id,
        "vision_start_token_id": cfg.vision_start_token_id,
        "vision_end_token_id": cfg.vision_end_token_id,
        "vision_config": _vision_fields(cfg.family, cfg.vision),
    }


def _text_fields(text: TextConfig) -> dict[str, Any]:
    return {
        "hidden_act": "silu",
        "vocab_size": text.vocab_size,
        "hidden_size": text.hidden_size,
        "intermediate_size": text.intermediate_size,
        "num_hidden_layers": text.num_layers,
        "num_attention_heads": text.num_heads,
        "num_key_value_heads": text.num_kv_heads,
        "max_position_embeddings": text.max_position_embeddings,
        "rms_norm_eps": text.rms_norm_eps,
        "rope_theta": text.rope_theta,
        "tie_word_embeddings": text.tie_word_embeddings,
        "use_sliding_window": False,
    }


def _vision_fields(family: Family, vision: VisionConfig) -> dict[str, Any]:
    shared = {
        "model_type": family,
        "depth": vision.depth,
        "num_heads": vision.num_heads,
        "hidden_act": vision.hidden_act,
        "in_channels": vision.in_channels,
        "patch_size": vision.patch_size,
        "temporal_patch_size": vision.temporal_patch_size,
        "spatial_merge_size": vision.spatial_merge_size,
    }
    # The rest is named differently by the two families.
    if family == "qwen2_vl":
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
