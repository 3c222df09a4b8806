"""What a model family is: one frozen record that names everything the rest of the package asks a family for.

A family is a folder of `models/` that holds what is its own (configuration, tower, model, tensor names, presets) and its
record in `family.py`; `models.registry` lists the records.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

from svlm_jax.models.config import ModelConfig, TowerConfig
from svlm_jax.models.hf_fields import Raw
from svlm_jax.models.names import TensorNames
from svlm_jax.models.resize_rule import ResizeRule
from svlm_jax.models.vlm import VLM

# watch: commentates on a stream second by second. ask: answers questions about it. train: its tower has a pass for training.
Capability = Literal["watch", "ask", "train"]
# words: visual tokens are numbered like words. blocks: an image or video is one block of (t, h, w) positions. frames: so is
# each temporal grid of a video, because time is told in text between them.
PositionRule = Literal["words", "blocks", "frames"]
# Pattern of a dotted parameter path -> one logical axis for each dimension; None: never cut.
ShardingRow: TypeAlias = tuple[str, tuple[str | None, ...]]


@dataclasses.dataclass(frozen=True)
class VisualLayout:
    """How a prompt writes a picture or video: `before`, pads, `after`; texts of one token each, or None.

    time_stamp: text with the place of a number of seconds, `"<{:.1f} seconds>"`, of families that tell time in text: it stands
    before each temporal grid of a video, and each has marks of its own.
    """

    image: str
    video: str
    before: str | None = None
    after: str | None = None
    time_stamp: str | None = None


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Widths of a model with random weights: of its decoder, and of its vision tower."""

    tiny: bool
    width: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    sections: tuple[int, int, int]
    vision_width: int
    vision_hidden: int
    vision_layers: int
    vision_heads: int


@dataclasses.dataclass(frozen=True)
class Family:
    """One model family.

    Attributes:
      name: the `model_type` of its config.json. architecture: the class that config.json names.
      module: what `functional.bind` makes of its configuration. tower_config: the class of `ModelConfig.vision`.
      read_config: (name, config.json, preprocessor_config.json) -> configuration. Raises CheckpointError for what is not
        supported, KeyError for a missing field. write_config: the inverse, but for the pixel statistics.
      preprocessor_fields: preprocessor_config.json of an exported model.
      names: of its tensors in published files. sharding: rows of the sharding table for what is not the decoder.
      positions: how visual tokens are numbered. layout: how a prompt writes visuals.
      resize_rule: how large frames of a video reach a tower.
      capabilities: what of the package it can do beyond reading, writing and running whole sequences.
      presets: released sizes, as the config.json of each.
      random_text: fields of TextConfig, and random_tower: the tower, of a model with random weights of a geometry.
      chat_template: of a checkpoint with random weights.
    """

    name: str
    architecture: str
    module: type[VLM]
    tower_config: type
    read_config: Callable[[str, Raw, Raw], ModelConfig]
    write_config: Callable[[ModelConfig], dict[str, Any]]
    preprocessor_fields: Callable[[ModelConfig], dict[str, Any]]
    names: TensorNames
    layout: VisualLayout
    positions: PositionRule
    resize_rule: Callable[[Any], ResizeRule]
    capabilities: frozenset[Capability]
    random_text: Callable[[Geometry], Mapping[str, Any]]
    random_tower: Callable[[Geometry], TowerConfig]
    chat_template: str
    sharding: tuple[ShardingRow, ...] = ()
    presets: Mapping[str, Raw] = dataclasses.field(default_factory=dict, hash=False)
