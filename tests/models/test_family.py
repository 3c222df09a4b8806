"""A family is a folder and a record: one made here, by one class and one registration, is read, written and run like others."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from svlm_jax.cache.policies import memory_policy
from svlm_jax.checkpoint import hf
from svlm_jax.checkpoint.random import random_config, write_random_checkpoint
from svlm_jax.errors import CheckpointError
from svlm_jax.models import functional, registry
from svlm_jax.models.config import ModelConfig
from svlm_jax.models.decoder import Decoder
from svlm_jax.models.layers import Linear
from svlm_jax.models.llava_onevision.config import SiglipConfig
from svlm_jax.models.names import DECODER_NAMES, TensorNames
from svlm_jax.models.vlm import VLM, Tower, VisionFeatures
from svlm_jax.streaming.vlm import StreamingVLM
from svlm_jax.video.chunk import Chunk


@dataclasses.dataclass(frozen=True)
class MeanConfig(SiglipConfig):
    """A tower that looks at nothing but the mean colour of a square picture: one token a frame."""

    def clip_grid(self, frames, height, width, fps):
        return dataclasses.replace(super().clip_grid(frames, height, width, fps), w=1)

    def clip_tokens(self, frames, height, width):
        return frames


class MeanTower(Tower):
    def __init__(self, cfg, *, dtype, rngs):
        self.project = Linear(3, cfg.out_hidden_size, bias=True, dtype=dtype, rngs=rngs)

    def encode(self, frames, implementation="auto"):
        means = (frames.astype(jnp.float32) / 255).mean((-2, -1))
        return VisionFeatures(self.project(means.astype(self.project.weight[...].dtype)))


class Mean(VLM):
    def __init__(self, cfg, *, dtype, rngs):
        self.cfg = cfg
        self.visual = MeanTower(cfg.vision, dtype=dtype, rngs=rngs)
        self.decoder = Decoder(cfg.text, dtype=dtype, rngs=rngs)

    def encode_video(self, frames, *, implementation="auto"):
        return self.visual.encode(frames, implementation)


def _tower(geometry):
    tower = registry.FAMILIES["llava_onevision"].random_tower(geometry)
    return MeanConfig(**{field.name: getattr(tower, field.name) for field in dataclasses.fields(tower)})


def _read(name, raw, preprocessor):
    cfg = registry.FAMILIES["llava_onevision"].read_config(name, raw, preprocessor)
    fields = {field.name: getattr(cfg.vision, field.name) for field in dataclasses.fields(cfg.vision)}
    return dataclasses.replace(cfg, vision=MeanConfig(**fields))


@pytest.fixture
def mean(monkeypatch):
    record = dataclasses.replace(
        registry.FAMILIES["llava_onevision"],
        name="mean_colour",
        architecture="MeanColourForConditionalGeneration",
        module=Mean,
        tower_config=MeanConfig,
        read_config=_read,
        names=TensorNames((*DECODER_NAMES, ("colour.*", "visual.project.*", "transpose")), {}),
        random_tower=_tower,
        presets={},
    )
    monkeypatch.setitem(registry.FAMILIES, record.name, record)
    return record


def test_it_is_read_written_and_asked(mean, tmp_path):
    write_random_checkpoint(tmp_path / "model", family="mean_colour")
    loaded = hf.load(tmp_path / "model")
    assert loaded.config == random_config("mean_colour") and isinstance(loaded.config, ModelConfig)
    assert isinstance(functional.bind(loaded.config, loaded.params), Mean)

    vlm = StreamingVLM.from_pretrained(tmp_path / "model", dtype="float32")
    side = loaded.config.vision.image_size
    answers = []
    for colour in (20, 200):
        stream = vlm.qa_session(memory=memory_policy("full", budget=8, clip_frames=4), fps=1.0)
        stream.feed(Chunk(frames=np.full((4, 3, side, side), colour, np.uint8), start=0.0, end=4.0))
        answers.append(np.asarray(stream.read(stream.dialogue.turn("Which colour?", None, None)).logits))
    assert np.abs(answers[0] - answers[1]).max() > 1e-3, "what was seen changes what is said"


def test_without_its_registration_the_checkpoint_is_refused(mean, monkeypatch, tmp_path):
    write_random_checkpoint(tmp_path / "model", family="mean_colour")
    monkeypatch.delitem(registry.FAMILIES, "mean_colour")
    with pytest.raises(CheckpointError, match=r"MeanColourForConditionalGeneration.*not supported"):
        hf.load(tmp_path / "model")
