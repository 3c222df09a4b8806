"""How a family's published files call its tensors: rows of (hub name, our path, transform).

`{i}` is a layer number; `*` stands for the leaves `weight` and, where our parameters have it, `bias`. Hub tensors with one
path of ours are parts of one weight, in that order.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal, TypeAlias

# same: as it is. transpose: (out, in) -> (in, out). patches: a convolution (E, channels, [t,] y, x) -> (pixels, E).
# experts: (experts, in, out) as it is, as published; or (experts, out, in), as transformers 5 writes it.
Transform = Literal["same", "transpose", "patches", "experts"]
NameRow: TypeAlias = tuple[str, str, Transform]

# The decoder of Qwen2 and Qwen3, as every family here has it, before a prefix of its own.
DECODER_NAMES: tuple[NameRow, ...] = (
    ("model.embed_tokens.*", "decoder.embed.*", "same"),
    ("model.layers.{i}.input_layernorm.*", "decoder.layers.{i}.attn_norm.*", "same"),
    ("model.layers.{i}.self_attn.q_proj.*", "decoder.layers.{i}.attn.qkv.*", "transpose"),
    ("model.layers.{i}.self_attn.k_proj.*", "decoder.layers.{i}.attn.qkv.*", "transpose"),
    ("model.layers.{i}.self_attn.v_proj.*", "decoder.layers.{i}.attn.qkv.*", "transpose"),
    ("model.layers.{i}.self_attn.o_proj.*", "decoder.layers.{i}.attn.o.*", "transpose"),
    ("model.layers.{i}.post_attention_layernorm.*", "decoder.layers.{i}.mlp_norm.*", "same"),
    ("model.layers.{i}.mlp.gate_proj.*", "decoder.layers.{i}.mlp.gate_up.*", "transpose"),
    ("model.layers.{i}.mlp.up_proj.*", "decoder.layers.{i}.mlp.gate_up.*", "transpose"),
    ("model.layers.{i}.mlp.down_proj.*", "decoder.layers.{i}.mlp.down.*", "transpose"),
    ("model.norm.*", "decoder.norm.*", "same"),
    ("lm_head.*", "decoder.head.*", "transpose"),
)


@dataclasses.dataclass(frozen=True)
class TensorNames:
    """The names that a family's files use.

    Attributes:
      rows: as the published files spell them; each parameter of ours matches exactly one.
      newer: prefixes of other files -> those of `rows`; the first that fits counts.
    """

    rows: tuple[NameRow, ...]
    newer: Mapping[str, str]

    def __hash__(self) -> int:
        return hash(self.rows)

    def as_published(self, name: str) -> str:
        """A tensor name as other files spell it -> as `rows` does."""
        for newer, older in self.newer.items():
            if name.startswith(newer):
                return older + name[len(newer) :]
        return name

    @property
    def head(self) -> str:
        """What `rows` call the output head."""
        return next(hub for hub, ours, _ in self.rows if ours == "decoder.head.*").replace("*", "weight")
