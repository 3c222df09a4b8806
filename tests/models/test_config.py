"""Configurations: every layout of config.json that is in use, and a clear sentence for what cannot work."""

import dataclasses
import json

import pytest

from svlm_jax.checkpoint.random import random_config
from svlm_jax.errors import CheckpointError, ConfigError
from svlm_jax.models import registry

FAMILIES = ("qwen2_5_vl", "qwen2_vl", "llava_onevision")
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
    if "text_config" in raw:
        text = dict(raw["text_config"])
        return {
            **raw,
            "text_config": {**text, "rope_parameters": {"rope_type": "default", "rope_theta": text.pop("rope_theta")}},
        }
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
    assert registry.config_from_hf(layout(registry.config_to_hf(cfg))) == cfg
    assert hash(registry.config_from_hf(registry.config_to_hf(cfg))) == hash(cfg)


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
    cfg = registry.config_from_hf(raw)
    assert (cfg.text.head_dim, cfg.text.num_layers, cfg.text.mrope_section) == (128, 28, (16, 24, 24))
    assert (cfg.vision.head_dim, cfg.vision.tokens_per_second, cfg.vision.fullatt_block_indexes) == (80, 2.0, (7, 15, 23, 31))


def test_published_llava_files_are_understood():
    """The fields of llava-onevision-qwen2-7b-ov-hf's config.json as it is on the hub: defaults are left out."""
    raw = {
        "architectures": ["LlavaOnevisionForConditionalGeneration"],
        "ignore_index": -100,
        "image_grid_pinpoints": [[384, 384], [384, 768], [768, 384]],
        "image_token_index": 151646,
        "model_type": "llava_onevision",
        "projector_hidden_act": "gelu",
        "text_config": {
            "_name_or_path": "Qwen/Qwen2-7B-Instruct",
            "architectures": ["Qwen2ForCausalLM"],
            "bos_token_id": 151643,
            "eos_token_id": 151645,
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "max_window_layers": 28,
            "model_type": "qwen2",
            "num_attention_heads": 28,
            "num_hidden_layers": 28,
            "num_key_value_heads": 4,
            "rope_theta": 1000000.0,
            "torch_dtype": "bfloat16",
            "vocab_size": 152128,
        },
        "tie_word_embeddings": False,
        "use_image_newline_parameter": True,
        "video_token_index": 151647,
        "vision_aspect_ratio": "anyres_max_9",
        "vision_config": {
            "hidden_size": 1152,
            "image_size": 384,
            "intermediate_size": 4304,
            "model_type": "siglip_vision_model",
            "num_attention_heads": 16,
            "num_hidden_layers": 26,
            "patch_size": 14,
            "vision_use_head": False,
        },
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
    }
    cfg = registry.config_from_hf(raw)
    assert (cfg.text.head_dim, cfg.text.num_layers, cfg.text.mrope_section) == (128, 28, (64, 0, 0))
    assert (cfg.text.rms_norm_eps, cfg.text.rope_theta) == (1e-6, 1e6)
    assert (cfg.vision.head_dim, cfg.vision.feature_layers, cfg.vision.max_tiles) == (72, (26,), 9)
    assert (cfg.vision.image_mean, cfg.vision.grid_pinpoints[2]) == ((0.5, 0.5, 0.5), (768, 384))
    assert (cfg.image_token_id, cfg.video_token_id, cfg.vision_start_token_id) == (151646, 151647, None)


def test_pixel_statistics_come_from_the_preprocessor(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(registry.config_to_hf(random_config("qwen2_vl"))))
    assert registry.config_from_hf(tmp_path).vision.image_mean[0] == 0.48145466
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 4]}))
    vision = registry.config_from_hf(tmp_path).vision
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
        (change(num_hidden_layers="many"), "num_hidden_layers.*'many'.*whole number"),
        (without("rms_norm_eps"), "'rms_norm_eps'"),
        (without("vision_config"), "vision_config"),
    ],
)
def test_unusable_files_are_named(edit, names):
    with pytest.raises(CheckpointError, match=names):
        registry.config_from_hf(edit(registry.config_to_hf(random_config("qwen2_5_vl"))))


def test_folder_without_config(tmp_path):
    with pytest.raises(CheckpointError, match=r"holds no config\.json"):
        registry.config_from_hf(tmp_path)


@pytest.mark.parametrize("text", ["{", "[1]", ""])
def test_broken_json(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        registry.config_from_hf(tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "names"),
    [
        ("num_heads", 3, "num_attention_heads 3"),
        ("patch_size", 64, "patch_size is 64"),
        ("feature_layers", (1, 9), r"\[9\].*0 to 3"),
        ("feature_layers", (), "vision_feature_layer"),
        ("grid_pinpoints", ((30, 30), (30, 40)), r"\[\[30, 40\]\].*30 x 30"),
        ("grid_pinpoints", (), "image_grid_pinpoints"),
        ("projector_act", "relu", "projector_act is 'relu'"),
        ("image_std", (1.0, 0.0, 1.0), "positive"),
        ("max_tiles", 0, "max_tiles is 0"),
    ],
)
def test_impossible_values_of_siglip_are_named(field, value, names):
    with pytest.raises(ConfigError, match=names):
        dataclasses.replace(random_config("llava_onevision").vision, **{field: value})


def test_a_tower_of_another_family_is_named():
    with pytest.raises(ConfigError, match="VisionConfig, but the family llava_onevision needs a SiglipConfig"):
        registry.record(dataclasses.replace(random_config("llava_onevision"), vision=random_config("qwen2_vl").vision))


def change_vision(**fields):
    return lambda raw: {**raw, "vision_config": {**raw["vision_config"], **fields}}


@pytest.mark.parametrize(
    ("edit", "names"),
    [
        (change_vision(model_type="clip_vision_model"), "clip_vision_model"),
        (change_vision(vision_use_head=True), "vision_use_head"),
        (change_vision(hidden_size=None), "hidden_size"),
        (change(vision_feature_select_strategy="default"), "vision_feature_select_strategy 'default'"),
        (change(vision_aspect_ratio="pad"), "vision_aspect_ratio 'pad'"),
        (change(vision_feature_layer=[-9]), r"\[-5\]"),
        (without("vision_config"), "vision_config"),
    ],
)
def test_unusable_llava_files_are_named(edit, names):
    with pytest.raises((CheckpointError, ConfigError), match=names):
        registry.config_from_hf(edit(registry.config_to_hf(random_config("llava_onevision"))))
