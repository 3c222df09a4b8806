"""Fields of config.json and of the processors: kinds and ranges, null, ties, and what is refused by name."""

import copy
import functools
import json

import pytest

from svlm_jax.checkpoint.random import random_config
from svlm_jax.errors import CheckpointError, SvlmError
from svlm_jax.models import registry
from svlm_jax.models.hf_schema import checked_config, read_processor, tied_inside


@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava_onevision"])
@pytest.mark.parametrize("value", [float("nan"), float("-inf"), True, 0.5, 10**400, "8", [8], -1, 2**40])
@pytest.mark.parametrize("field", ["num_hidden_layers", "vocab_size"])
def test_a_count_is_a_whole_number_in_range(family, field, value):
    raw = registry.config_to_hf(random_config(family))
    raw.get("text_config", raw)[field] = value
    with pytest.raises(CheckpointError, match=rf"field '{field}' is .*: expected a whole number from 1 to"):
        registry.config_from_hf(raw)


def test_fields_inside_are_named_with_their_place():
    raw = registry.config_to_hf(random_config("qwen2_5_vl"))
    raw["vision_config"]["fullatt_block_indexes"] = [1, float("inf")]
    with pytest.raises(CheckpointError, match=r"config.json, vision_config, field 'fullatt_block_indexes\[1\]' is inf"):
        registry.config_from_hf(raw)


def test_null_is_absent():
    raw = registry.config_to_hf(random_config("qwen2_5_vl"))
    plain = registry.config_from_hf(raw)
    raw["vision_config"]["temporal_patch_size"] = None
    assert registry.config_from_hf({**raw, "text_config": {"rms_norm_eps": None}, "max_position_embeddings": None}) == plain


@pytest.mark.parametrize("family", registry.FAMILIES)
def test_null_is_absent_in_every_field(family):
    """The same configuration, or the same refusal."""
    raw = registry.config_to_hf(random_config(family))

    def places(value, path=()):
        for name in value if isinstance(value, dict) else ():
            yield (*path, name)
            yield from places(value[name], (*path, name))

    def outcome(changed):
        try:
            return registry.config_from_hf(changed)
        except SvlmError as error:
            return str(error)

    for path in places(raw):
        null, absent = copy.deepcopy(raw), copy.deepcopy(raw)
        for changed in (null, absent):
            inside = functools.reduce(dict.__getitem__, path[:-1], changed)
            inside[path[-1]] = None
            if changed is absent:
                del inside[path[-1]]
        assert outcome(null) == outcome(absent), path


@pytest.mark.parametrize(
    ("outer", "inner", "tied"),
    [(False, True, False), (True, False, True), (None, True, True), (None, None, False), (False, None, False)],
)
def test_the_outer_tie_counts_where_it_is_given(outer, inner, tied):
    raw = registry.config_to_hf(random_config("llava_onevision"))
    raw["tie_word_embeddings"], raw["text_config"]["tie_word_embeddings"] = outer, inner
    assert registry.config_from_hf(raw).text.tie_word_embeddings is tied
    assert tied_inside(raw) is bool(inner)


def test_quantized_weights_and_sliding_layers_are_refused():
    raw = registry.config_to_hf(random_config("qwen2_5_vl"))
    with pytest.raises(CheckpointError, match=r"quantized \('awq'\), which is not supported"):
        registry.config_from_hf({**raw, "quantization_config": {"quant_method": "awq", "bits": 4}})
    with pytest.raises(CheckpointError, match="layer_types 'sliding_attention'"):
        checked_config({**raw, "layer_types": ["full_attention", "sliding_attention"]})


def test_an_adapter_is_named(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="an adapter"):
        registry.config_from_hf(tmp_path)


def statistics(mean, **more):
    return {"image_mean": [mean] * 3, "image_std": [0.5] * 3, "do_normalize": True, "rescale_factor": 1 / 255, **more}


@pytest.mark.parametrize(
    ("files", "mean"),
    [
        ({"preprocessor_config.json": statistics(0.1)}, 0.1),
        ({"processor_config.json": {"image_processor": statistics(0.2), "processor_class": "X"}}, 0.2),
        ({"processor_config.json": {"image_processor": statistics(0.2), "video_processor": statistics(0.3)}}, 0.3),
        ({"processor_config.json": {"num_image_tokens": 729}, "preprocessor_config.json": statistics(0.1)}, 0.1),
        ({"video_preprocessor_config.json": statistics(0.4), "preprocessor_config.json": statistics(0.1)}, 0.4),
    ],
)
def test_every_layout_of_processors_is_read(tmp_path, files, mean):
    (tmp_path / "config.json").write_text(json.dumps(registry.config_to_hf(random_config("qwen2_5_vl"))))
    for name, fields in files.items():
        (tmp_path / name).write_text(json.dumps(fields))
    assert registry.config_from_hf(tmp_path).vision.image_mean == (mean,) * 3


@pytest.mark.parametrize("change", [{"do_normalize": False}, {"rescale_factor": 1.0}, {"image_std": [0.5, False, 0.5]}])
def test_other_normalization_is_refused(tmp_path, change):
    (tmp_path / "processor_config.json").write_text(json.dumps({"video_processor": statistics(0.3, **change)}))
    with pytest.raises(CheckpointError, match=rf"processor_config.json, video_processor.*{next(iter(change))}"):
        read_processor(tmp_path)


def test_what_transformers_writes_is_read(tmp_path):
    transformers = pytest.importorskip("transformers")
    image = transformers.models.qwen2_vl.image_processing_pil_qwen2_vl.Qwen2VLImageProcessorPil(image_mean=[0.1, 0.2, 0.3])
    image.save_pretrained(tmp_path)
    assert read_processor(tmp_path)["image_mean"] == (0.1, 0.2, 0.3)


@pytest.mark.parametrize("text", ["[" * 5000, '{"a":' * 200 + "1" + "}" * 200, '{"a": "\\ud800"}', "1" * 5000])
def test_hostile_json_is_a_sentence(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(SvlmError, match=r"config\.json"):
        registry.config_from_hf(tmp_path)
