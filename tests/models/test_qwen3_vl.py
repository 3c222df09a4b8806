"""Qwen3-VL: logits of all tokens equal `transformers`', and would not if any one feature were missing."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from svlm_jax.checkpoint import hf
from svlm_jax.checkpoint.export import export
from svlm_jax.checkpoint.random import random_config
from svlm_jax.errors import CheckpointError, ConfigError
from svlm_jax.models import functional, positions, registry
from svlm_jax.models.experts import MoE
from svlm_jax.models.qwen3_vl import tower as tower_module
from svlm_jax.models.qwen3_vl.tower import interpolation
from svlm_jax.models.vlm import VisionFeatures
from tests.models import oracle
from tests.models.oracle import Case, sequence

FAMILIES = ("qwen3_vl", "qwen3_vl_moe")
ATOL = 1e-4
_TEXT = {
    "vocab_size": oracle.VOCAB,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,  # not the width over the heads
    "max_position_embeddings": 1024,
    "rope_parameters": {
        "rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [4, 2, 2], "mrope_interleaved": True,
    },
    "bos_token_id": 300,
    "eos_token_id": 301,
}  # fmt: skip
_VISION = {
    "depth": 3,
    "hidden_size": 32,
    "intermediate_size": 56,
    "num_heads": 2,
    "out_hidden_size": 48,
    "patch_size": 4,
    "num_position_embeddings": 25,
    "deepstack_visual_indexes": [0, 2],
}


def frames(t, h, w):
    """A video as the prompt has it: a few tokens that tell the time, then the pads of one temporal grid, and again."""
    return [part for _ in range(t) for part in (2, ("video", (1, h, w)))]


CASES = {
    "text": Case(sequence(23)),
    "one_image": Case(sequence(5, ("image", (1, 6, 10)), 7), image_grids=((1, 6, 10),)),
    "two_images": Case(sequence(4, ("image", (1, 10, 6)), 6, ("image", (1, 4, 14)), 5), image_grids=((1, 10, 6), (1, 4, 14))),
    "video": Case(sequence(3, *frames(3, 10, 6), 9), video_grids=((3, 10, 6),)),
    "image_and_videos": Case(
        sequence(3, *frames(2, 6, 2), 4, ("image", (1, 6, 10)), 3, *frames(4, 4, 6), 6),
        image_grids=((1, 6, 10),),
        video_grids=((2, 6, 2), (4, 4, 6)),
    ),
}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """By family and whether the head is tied: the model of `transformers`, and what is read from the files that it writes."""
    made = {}

    def load(family, tied=False):
        if (family, tied) not in made:
            transformers = pytest.importorskip("transformers")
            pytest.importorskip("torch").set_num_threads(1)
            name = "Qwen3VLMoe" if family == "qwen3_vl_moe" else "Qwen3VL"
            text = dict(_TEXT)
            if family == "qwen3_vl_moe":
                text |= {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 20}
            config = getattr(transformers, f"{name}Config")(
                text_config=text,
                vision_config=dict(_VISION),
                image_token_id=oracle.IMAGE,
                video_token_id=oracle.VIDEO,
                vision_start_token_id=oracle.VISION_START,
                vision_end_token_id=oracle.VISION_END,
                tie_word_embeddings=tied,
            )
            model = oracle.randomise(getattr(transformers, f"{name}ForConditionalGeneration")(config), 0)
            folder = tmp_path_factory.mktemp(family)
            model.save_pretrained(folder)
            made[family, tied] = model, hf.load(folder)
        return made[family, tied]

    return load


def difference(loaded, family, name, *, tied=False, change=lambda cfg: cfg):
    model, ours = loaded(family, tied)
    expected = oracle.expected_logits(model, ours.config, CASES[name])
    assert np.abs(expected).max() > 0.5, "logits near zero would agree with anything"
    return np.abs(oracle.our_logits(change(ours.config), ours.params, CASES[name]) - expected).max()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_equal_transformers(loaded, family, name):
    assert difference(loaded, family, name) <= ATOL


def test_tied_head(loaded):
    assert difference(loaded, "qwen3_vl", "image_and_videos", tied=True) <= ATOL


def test_without_deepstack_parity_fails(loaded, monkeypatch):
    monkeypatch.setattr(tower_module, "VisionFeatures", lambda tokens, deepstack: VisionFeatures(tokens))
    assert difference(loaded, "qwen3_vl", "video") > 100 * ATOL
    assert difference(loaded, "qwen3_vl", "text") <= ATOL, "text has no part in it"


def test_without_interleaved_sections_parity_fails(loaded):
    def change(cfg):
        return dataclasses.replace(cfg, text=dataclasses.replace(cfg.text, mrope_interleaved=False))

    assert difference(loaded, "qwen3_vl", "video", change=change) > 100 * ATOL
    assert difference(loaded, "qwen3_vl", "text", change=change) <= ATOL, "text moves along all axes alike"


@pytest.mark.parametrize("norm", ["q_norm", "k_norm"])
def test_without_norms_of_heads_parity_fails(loaded, norm):
    model, ours = loaded("qwen3_vl")
    expected = oracle.expected_logits(model, ours.config, CASES["text"])
    layers = ours.params["decoder"]["layers"]
    flat = {
        i: {**layer, "attn": {**layer["attn"], norm: {"weight": np.ones_like(layer["attn"][norm]["weight"])}}}
        for i, layer in layers.items()
    }
    params = {**ours.params, "decoder": {**ours.params["decoder"], "layers": flat}}
    assert np.abs(oracle.our_logits(ours.config, params, CASES["text"]) - expected).max() > 100 * ATOL


def test_without_interpolated_positions_parity_fails(loaded, monkeypatch):
    """The nearest learned position instead of a mixture of four."""

    def nearest(grid, cfg):
        index, share = interpolation(grid, cfg)
        return index, (share == share.max(1, keepdims=True)).astype(np.float32)

    monkeypatch.setattr(tower_module, "interpolation", nearest)
    assert difference(loaded, "qwen3_vl", "one_image") > 100 * ATOL


def test_a_video_in_one_block_of_positions_fails(loaded, monkeypatch):
    """Time is told in text between the frames, which are blocks of their own."""
    monkeypatch.setitem(registry.FAMILIES, "qwen3_vl", dataclasses.replace(registry.FAMILIES["qwen3_vl"], positions="blocks"))
    with pytest.raises(ConfigError, match="do not hold whole blocks"):
        positions.rope_positions(CASES["video"].tokens, random_config("qwen3_vl"), video_grids=CASES["video"].video_grids)


def test_with_one_expert_instead_of_two_parity_fails(loaded):
    def change(cfg):
        one = dataclasses.replace(cfg.text.experts, per_token=1)
        return dataclasses.replace(cfg, text=dataclasses.replace(cfg.text, experts=one))

    assert difference(loaded, "qwen3_vl_moe", "text", change=change) > 100 * ATOL


def test_no_token_is_dropped_when_all_want_one_expert():
    """Grouped products over very uneven groups equal a plain sum over experts."""
    cfg = dataclasses.replace(random_config("qwen3_vl_moe").text.experts, count=4, per_token=2, intermediate_size=8)
    module = MoE(16, cfg, dtype=jnp.float32, rngs=nnx.Rngs(0))
    module.router.weight[...] = module.router.weight[...].at[:, 2].set(10.0)
    x = jnp.abs(jax.random.normal(jax.random.key(1), (2, 9, 16)))
    shares = jax.nn.softmax(module.router(x), -1)
    best = jax.lax.top_k(shares, 2)[0]
    kept = jnp.where(shares >= best[..., 1:], shares, 0) / best.sum(-1, keepdims=True)
    gate, up = jnp.split(jnp.einsum("btd,edi->btei", x, module.experts.gate_up[...]), 2, -1)
    expected = jnp.einsum("btei,eid,bte->btd", jax.nn.silu(gate) * up, module.experts.down[...], kept)
    assert (np.asarray(kept[..., 2]) > 0).all()
    np.testing.assert_allclose(module(x), expected, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_export_loads_in_transformers(family, tmp_path):
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    cfg = random_config(family)
    params = functional.init_params(cfg, jax.random.key(0))
    export(tmp_path / "model", cfg, params)
    model = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path / "model", dtype=torch.float32).eval()
    case = Case(CASES["text"].tokens)
    np.testing.assert_allclose(oracle.our_logits(cfg, params, case), oracle.expected_logits(model, cfg, case), atol=ATOL)
    again = hf.load(tmp_path / "model")
    assert again.config == cfg


@pytest.mark.parametrize(
    ("family", "architecture"),
    [("qwen3_5", "Qwen3_5ForConditionalGeneration"), ("qwen3_omni_moe", "Qwen3OmniMoeForConditionalGeneration")],
)
def test_relatives_are_refused_by_name(family, architecture):
    raw = registry.config_to_hf(random_config("qwen3_vl")) | {"model_type": family, "architectures": [architecture]}
    with pytest.raises(CheckpointError, match=rf"\({architecture}\) is not supported; supported are .*Qwen3VLMoeFor"):
        registry.config_from_hf(raw)


def test_a_missing_tensor_is_named(tmp_path):
    cfg = random_config("qwen3_vl")
    export(tmp_path / "model", cfg, functional.init_params(cfg, jax.random.key(0)))
    weights = load_file(tmp_path / "model/model.safetensors")
    del weights["model.visual.deepstack_merger_list.0.norm.bias"]
    save_file(weights, tmp_path / "model/model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"model\.visual\.deepstack_merger_list\.0\.norm\.bias"):
        hf.load(tmp_path / "model")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"rope_scaling": {"mrope_section": [2, 3, 3], "mrope_interleaved": False}}, "mrope_interleaved"),
        ({"head_dim": None}, "'head_dim'"),
    ],
)
def test_unusable_files_are_named(family, fields, names):
    raw = registry.config_to_hf(random_config(family))
    with pytest.raises(CheckpointError, match=names):
        registry.config_from_hf({**raw, "text_config": {**raw["text_config"], **fields}})


def test_models_with_dense_layers_between_are_named():
    raw = registry.config_to_hf(random_config("qwen3_vl_moe"))
    with pytest.raises(CheckpointError, match=r"decoder_sparse_step 2 and mlp_only_layers \[\]"):
        registry.config_from_hf({**raw, "text_config": {**raw["text_config"], "decoder_sparse_step": 2}})


@pytest.mark.parametrize(
    ("field", "value", "names"),
    [
        ("num_position_embeddings", 24, "must be a square"),
        ("deepstack_visual_indexes", (1, 9), r"\[9\].*0 to 2"),
    ],
)
def test_impossible_values_are_named(field, value, names):
    with pytest.raises(ConfigError, match=names):
        dataclasses.replace(random_config("qwen3_vl").vision, **{field: value})
