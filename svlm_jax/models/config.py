"""What a model is: frozen, hashable dataclasses, checked when they are made; `models.registry` reads and writes them."""

import dataclasses
import math
from typing import Protocol

from svlm_jax.cache.kv import KVShape
from svlm_jax.host.checks import require, require_positive


@dataclasses.dataclass(frozen=True)
class ExpertsConfig:
    """A mixture of `count` SwiGLUs of inner width `intermediate_size`, of which each token uses the best `per_token`.

    `balance` is the weight of the load-balancing loss in training.
    """

    count: int
    per_token: int
    intermediate_size: int
    balance: float = 0.001

    def __post_init__(self) -> None:
        require_positive(self, "count", "per_token", "intermediate_size")
        require(self.balance >= 0, f"router_aux_loss_coef is {self.balance}, but must be 0 or more.")
        require(
            self.per_token <= self.count,
            f"num_experts_per_tok is {self.per_token}, but there are only {self.count} experts.",
        )


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """The decoder: `num_layers` blocks of grouped-query attention and SwiGLU over a width of `hidden_size`.

    `mrope_section` says how many rotary frequencies follow the (t, h, w) axis of a position; they sum to head_dim / 2. Models
    with one axis (LLaVA-OneVision) have them all on the first. Sections lie one after the other, or alternate: t h w t h w ...
    t t (`mrope_interleaved`). `attention_bias`: queries, keys and values have one. `qk_norm`: heads of queries and keys are
    normalised before rotation. `experts`: the MLPs are mixtures of experts.
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
    attention_bias: bool = True
    qk_norm: bool = False
    mrope_interleaved: bool = False
    experts: ExpertsConfig | None = None

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
    def rope_axes(self) -> tuple[int, ...]:
        """The axis of the position (0, 1, 2 = t, h, w) that each rotary frequency follows."""
        if not self.mrope_interleaved:
            return tuple(axis for axis, count in enumerate(self.mrope_section) for _ in range(count))
        return tuple(i % 3 if i < 3 * self.mrope_section[i % 3] else 0 for i in range(self.head_dim // 2))

    @property
    def kv_shape(self) -> KVShape:
        """What a token takes in a cache of this decoder."""
        return KVShape(self.num_layers, self.num_kv_heads, self.head_dim)

    @property
    def mlp_groups(self) -> int:
        """Blocks in which the columns of gate and up alternate in their common weight: eight, for up to eight devices."""
        return math.gcd(self.intermediate_size, 8)


@dataclasses.dataclass(frozen=True)
class ClipGrid:
    """A clip as the decoder sees it: tokens (t, h, w) after merging, and positions between two t (0: numbered like words)."""

    t: int
    h: int
    w: int
    time_step: float

    @property
    def patches(self) -> int:
        """Tokens of the clip."""
        return self.t * self.h * self.w


class TowerConfig(Protocol):
    """What every family's vision tower says about itself; the rest is known to its own folder alone.

    `image_mean` and `image_std` normalise pixels scaled to [0, 1]. `patch_shape` is what one patch sees: channels, frames where
    a patch has several, rows and columns of pixels. `grid_frames` are the frames that share one temporal grid.
    """

    @property
    def hidden_size(self) -> int: ...
    @property
    def intermediate_size(self) -> int: ...
    @property
    def num_heads(self) -> int: ...
    @property
    def out_hidden_size(self) -> int: ...
    @property
    def image_mean(self) -> tuple[float, ...]: ...
    @property
    def image_std(self) -> tuple[float, ...]: ...
    @property
    def patch_shape(self) -> tuple[int, ...]: ...
    @property
    def patch_values(self) -> int: ...
    @property
    def grid_frames(self) -> int: ...

    def clip_grid(self, frames: int, height: int, width: int, fps: float) -> ClipGrid:
        """The grid of a clip of frames at `fps`; ConfigError when frames or sides do not split into tokens."""

    def clip_tokens(self, frames: int, height: int, width: int) -> int:
        """Tokens of a clip of so many frames of height x width pixels."""

    def clip_patches(self, tokens: int) -> int:
        """Patches that the tower looks at for so many tokens of video."""

    def clip_pairs(self, frames: int, height: int, width: int) -> int:
        """Pairs of patches in the blocks that look at whole pictures, all blocks together; windows are too small to count."""


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A whole vision-language model; hashable, so that it can be a static argument of `jax.jit`.

    `family` names a record of `models.registry`. Families without marks around their visuals (LLaVA-OneVision) have None for
    `vision_start_token_id` and its end.
    """

    family: str
    text: TextConfig
    vision: TowerConfig
    image_token_id: int = 151655
    video_token_id: int = 151656
    vision_start_token_id: int | None = 151652
    vision_end_token_id: int | None = 151653

    def __post_init__(self) -> None:
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
