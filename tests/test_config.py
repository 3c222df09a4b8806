"""Configurations: every layout of config.json that is in use, and a clear sentence for what cannot work."""

import dataclasses
import json

import pytest

from svlm_jax.checkpoint.random import random_config
from svlm_jax.config import ModelConfig
from svlm_jax.errors import CheckpointError, ConfigError

FAMILIES = ("qwen2_5_vl", "qwen2_vl")
TEXT_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
    "rms_norm_eps",
    "rope_theta",
    "rope_scaling",
    "tie_word_embeddings",
    "use_sliding_window",
    "hidden_act",
)


def nested(raw):
    """The layout of transformers 5: text fields under text_config, rope_parameters with the theta inside."""
    text = {name: raw[name] for name in TEXT_FIELDS}
    rope = text.pop("rope_scaling")
    text["rope_parameters"] = {**rope, "rope_theta": text.pop("rope_theta")}
    rest = {name: value for name, value in raw.items() if name not in TEXT_FIELDS}
    return {**rest, "text_config": text, "tie_word_embeddings": raw["tie_word_embeddings"]}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layout", [lambda raw: raw, nested])
@pytest.mark.parametrize("tied", [False, True])
def test_reads_what_it_writes(family, layout, tied):
    cfg = random_config(family)
    cfg = dataclasses.replace(cfg, text=dataclasses.replace(cfg.text, tie_word_embeddings=tied, rope_theta=5e5))
    assert ModelConfig.from_hf(layout(cfg.to_hf())) == cfg
    assert hash(ModelConfig.from_hf(cfg.to_hf())) == hash(cfg)


def test_published_files_are_understood():
    """The fields of Qwen2.5-VL-7B-Instruct's config.json as it is on the hub."""
    raw = {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "attention_dropout": 0.0,
        "hidden_act": "silu",
        "hidden_size": 3584,
        "image_token_id": 151655,
        "intermediate_size": 18944,
        "max_position_embeddings": 128000,
        "max_window_layers": 28,
        "model_type": "qwen2_5_vl",
        "num_attention_heads": 28,
        "num_hidden_layers": 28,
        "num_key_value_heads": 4,
        "rms_norm_eps": 1e-06,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        "rope_theta": 1000000.0,
        "sliding_window": 32768,
        "tie_word_embeddings": False,
        "use_sliding_window": False,
        "video_token_id": 151656,
        "vision_config": {
            "depth": 32,
            "fullatt_block_indexes": [7, 15, 23, 31],
            "hidden_act": "silu",
            "hidden_size": 1280,
            "in_chans": 3,
            "intermediate_size": 3420,
            "model_type": "qwen2_5_vl",
            "num_heads": 16,
            "out_hidden_size": 3584,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "spatial_patch_size": 14,
            "temporal_patch_size": 2,
            "tokens_per_second": 2,
            "window_size": 112,
        },
        "vision_end_token_id": 151653,
        "vision_start_token_id": 151652,
        "vocab_size": 152064,
    }
    cfg = ModelConfig.from_hf(raw)
    assert (cfg.text.head_dim, cfg.text.num_layers, cfg.text.mrope_section) == (128, 28, (16, 24, 24))
    assert (cfg.vision.head_dim, cfg.vision.tokens_per_second, cfg.vision.fullatt_block_indexes) == (80, 2.0, (7, 15, 23, 31))


def test_pixel_statistics_come_from_the_preprocessor(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(random_config("qwen2_vl").to_hf()))
    assert ModelConfig.from_hf(tmp_path).vision.image_mean[0] == 0.48145466
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 4]}))
    vision = ModelConfig.from_hf(tmp_path).vision
    assert (vision.image_mean, vision.image_std) == ((0.1, 0.2, 0.3), (1.0, 2.0, 4.0))


@pytest.mark.parametrize(
    ("part", "field", "value", "names"),
    [
        ("text", "hidden_size", 0, "hidden_size is 0"),
        ("text", "num_kv_heads", 3, "num_key_value_heads 3"),
        ("text", "mrope_section", (2, 3, 4), r"\[2, 3, 4\].*8"),
        ("text", "head_dim", 15, "15"),
        ("vision", "num_heads", 3, "num_heads 3"),
        ("vision", "window_size", 20, "20 pixels"),
        ("vision", "fullatt_block_indexes", (1, 9), r"\[9\]"),
        ("vision", "tokens_per_second", -1.0, "tokens_per_second is -1"),
        ("vision", "image_std", (1.0, 0.0, 1.0), "positive"),
        ("vision", "image_mean", (1.0,), "one for each of 3"),
        ("vision", "out_hidden_size", 32, "width 32.*64"),
    ],
)
def test_impossible_values_are_named(part, field, value, names):
    cfg = random_config("qwen2_5_vl")
    with pytest.raises(ConfigError, match=names):
        dataclasses.replace(cfg, **{part: dataclasses.replace(getattr(cfg, part), **{field: value})})


def test_token_ids_beyond_the_vocabulary_are_named():
    with pytest.raises(ConfigError, match=r"video_token_id is 320.*0 to 319"):
        dataclasses.replace(random_config("qwen2_vl"), video_token_id=320)


def change(**fields):
    return lambda raw: {**raw, **fields}


def without(name):
    return lambda raw: {key: value for key, value in raw.items() if key != name}


@pytest.mark.parametrize(
    ("edit", "names"),
    [
        (
            change(architectures=["LlamaForCausalLM"], model_type="llama"),
            "LlamaForCausalLM.*Qwen2_5_VLForConditionalGeneration",
        ),
        (change(architectures=None, model_type=None), "none named"),
        (change(rope_scaling={"type": "yarn", "mrope_section": [2, 3, 3]}), "yarn"),
        (change(rope_scaling=None), "mrope_section"),
        (change(use_sliding_window=True), "use_sliding_window"),
        (change(hidden_act="gelu"), "gelu"),
        (change(num_hidden_layers="many"), "wrong type"),
        (without("rms_norm_eps"), "'rms_norm_eps'"),
        (without("vision_config"), "vision_config"),
    ],
)
def test_unusable_files_are_named(edit, names):
    with pytest.raises(CheckpointError, match=names):
        ModelConfig.from_hf(edit(random_config("qwen2_5_vl").to_hf()))


def test_folder_without_config(tmp_path):
    with pytest.raises(CheckpointError, match=r"holds no config\.json"):
        ModelConfig.from_hf(tmp_path)


@pytest.mark.parametrize("text", ["{", "[1]", ""])
def test_broken_json(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        ModelConfig.from_hf(tmp_path)
