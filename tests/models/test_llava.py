"""LLaVA-OneVision: logits of all tokens equal `transformers`', and would not if any one feature were missing."""

import copy
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from svlm_jax.cli import main as cli
from svlm_jax.data.images import image_tiles
from svlm_jax.errors import ConfigError
from svlm_jax.models import functional
from svlm_jax.models.llava_onevision import anyres
from svlm_jax.models.llava_onevision import model as llava_onevision
from svlm_jax.models.llava_onevision import tower as siglip
from svlm_jax.models.llava_onevision.config import default_pinpoints
from svlm_jax.models.positions import rope_positions
from tests import checkpoints, clips
from tests.models import llava_oracle as oracle

ATOL = 1e-4


def difference(name, *, model=None, cfg=None, params=None, salt=""):
    """How far we are from the oracle at most; `cfg` and `params` (and code that the salt stands for) change our half alone."""
    theirs, ours = oracle.build(model or oracle.config())
    expected = oracle.expected_logits(theirs, ours.config, oracle.CASES[name])
    assert np.abs(expected).max() > 0.5, "logits near zero would agree with anything"
    found = oracle.our_logits(cfg or ours.config, params or ours.params, oracle.CASES[name], salt=salt)
    return np.abs(found - expected).max()


@pytest.mark.parametrize("name", oracle.CASES)
def test_logits_equal_transformers(name):
    assert difference(name) <= ATOL


VARIANTS = {
    "layer_before_last": {"feature_layers": (1,)},
    "two_layers": {"feature_layers": (0, 2), "projector_bias": False},
    "other_activations": {"projector_act": "gelu_pytorch_tanh", "hidden_act": "gelu"},
    "even_side": {"image_size": 33, "grid_pinpoints": default_pinpoints(33, 3)},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_equal_transformers(name):
    model = oracle.config(**VARIANTS[name])
    assert oracle.build(model)[1].config == model, "transformers keeps what our config.json says"
    assert difference("image_and_video", model=model) <= ATOL


def other(**vision):
    cfg = oracle.config()
    return dataclasses.replace(cfg, vision=dataclasses.replace(cfg.vision, **vision))


@pytest.mark.parametrize("layer", [0, 1])
def test_with_another_vision_layer_parity_fails(layer):
    assert difference("video", cfg=other(feature_layers=(layer,))) > 100 * ATOL


def without(*path):
    """Our parameters with zeros there."""
    params = oracle.build(oracle.config())[1].params
    *parents, leaf = path
    changed = copy.copy(params)
    node = changed
    for name in parents:
        node[name] = copy.copy(node[name])
        node = node[name]
    node[leaf] = jnp.zeros_like(node[leaf])
    return changed


@pytest.mark.parametrize("name", ["video", "wide_image", "two_images"])
def test_without_newlines_parity_fails(name):
    assert difference(name, params=without("projector", "newline")) > 100 * ATOL


@pytest.mark.parametrize("layer", ["fc1", "fc2"])
def test_without_the_projectors_biases_parity_fails(layer):
    assert difference("video", params=without("projector", layer, "bias")) > 100 * ATOL


def test_without_learned_positions_parity_fails():
    assert difference("video", params=without("visual", "position", "weight")) > 100 * ATOL


def test_the_last_norm_of_the_tower_is_not_applied():
    assert difference("video", params=without("visual", "post_norm", "weight")) <= ATOL


@pytest.mark.parametrize("field", ["projector_act", "hidden_act"])
def test_with_the_other_gelu_features_differ(field):
    """The two differ by up to 5e-4: small enough to slip through a loose test."""
    ours = oracle.build(oracle.config())[1]
    frames = np.random.default_rng(0).integers(0, 256, (4, 3, 30, 30), np.uint8)
    swap = {"gelu": "gelu_pytorch_tanh", "gelu_pytorch_tanh": "gelu"}

    def features(cfg):
        return jax.jit(lambda params: functional.bind(cfg, params).video(frames))(ours.params)

    changed = other(**{field: swap[getattr(ours.config.vision, field)]})
    assert np.abs(features(ours.config) - features(changed)).max() > ATOL


def test_with_antialiased_pooling_parity_fails(monkeypatch):
    resize = jax.image.resize
    monkeypatch.setattr(llava_onevision.jax.image, "resize", lambda *a, **k: resize(*a, **{**k, "antialias": True}))
    assert difference("video", salt="antialias") > 100 * ATOL
    assert difference("large_image", salt="antialias") > 100 * ATOL
    assert difference("square_image", salt="antialias") <= ATOL, "a single tile is not shrunk"


def test_without_unpadding_parity_fails(monkeypatch):
    """As many rows, but from the top of the canvas, where the padding is."""
    tiling = anyres.tiling
    place = tiling((40, 75), oracle.config().vision)
    (start, stop), columns = place.crop
    assert start > 0, "a case without padding would prove nothing"
    crop = (0, stop - start), columns
    monkeypatch.setattr(llava_onevision, "tiling", lambda *a: dataclasses.replace(tiling(*a), crop=crop))
    assert difference("wide_image", salt="unpad") > 100 * ATOL


def test_with_tiles_in_another_order_parity_fails(monkeypatch):
    monkeypatch.setattr(oracle, "image_tiles", lambda *a: image_tiles(*a)[[0, *range(1, len(image_tiles(*a)))][::-1]])
    assert difference("image_with_text_between") > 100 * ATOL


def test_with_positions_of_three_axes_parity_fails():
    """The decoder reads one axis; as Qwen's sections, equal axes change nothing and unequal ones do."""
    theirs, ours = oracle.build(oracle.config())
    cfg = dataclasses.replace(ours.config, text=dataclasses.replace(ours.config.text, mrope_section=(1, 1, 2)))
    assert difference("video", cfg=cfg) <= ATOL, "equal axes are one axis"
    ids = oracle.tokens(cfg, (23,))
    positions = rope_positions(ids, ours.config)
    np.testing.assert_array_equal(positions, np.broadcast_to(np.arange(23), (3, 23)))
    doubled = jax.jit(lambda params: functional.bind(ours.config, params)(ids[None], 2 * positions[None]))(ours.params)
    assert np.abs(doubled[0] - oracle.expected_logits(theirs, ours.config, (23,))).max() > 100 * ATOL


@pytest.mark.parametrize("implementation", ["reference", "xla"])
def test_every_state_of_the_tower(implementation):
    torch = pytest.importorskip("torch")
    theirs, ours = oracle.build(oracle.config())
    vision = ours.config.vision
    tiles = np.random.default_rng(0).integers(0, 256, (3, 3, 30, 30), np.uint8)
    mean, std = (np.asarray(a)[:, None, None] for a in (vision.image_mean, vision.image_std))
    with torch.no_grad():
        pixels = torch.tensor((tiles / 255.0 - mean) / std, dtype=torch.float32)
        states = theirs.model.vision_tower(pixels, output_hidden_states=True).hidden_states
    cfg = other(feature_layers=(0, 1, 2))

    @jax.jit
    def tower(params):
        return functional.bind(cfg, params).visual(siglip.patchify(tiles, vision), implementation)

    np.testing.assert_allclose(tower(ours.params), np.concatenate([state.numpy() for state in states], -1), atol=ATOL)


def test_streams_and_clips_see_what_they_would_see_alone():
    ours = oracle.build(oracle.config())[1]
    frames = np.random.default_rng(0).integers(0, 256, (2, 4, 3, 30, 30), np.uint8)
    see = jax.jit(lambda params, frames: functional.bind(ours.config, params).encode_video(frames).tokens)
    together = see(ours.params, frames)
    assert together.shape == (2, ours.config.vision.clip_tokens(4, 30, 30), ours.config.text.hidden_size) == (2, 64, 48)
    np.testing.assert_allclose(together[1, 32:], see(ours.params, frames[1:, 2:])[0], atol=1e-5)
    video = jax.jit(lambda params, frames: functional.bind(ours.config, params).video(frames))(ours.params, frames[0])
    np.testing.assert_allclose(video[:-1], together[0], atol=1e-5)
    np.testing.assert_array_equal(video[-1], ours.params["projector"]["newline"])


def test_bfloat16_is_as_near_as_the_oracles():
    """Weights and activations in bfloat16: not much further from float32 than `transformers` is in bfloat16."""
    torch = pytest.importorskip("torch")
    theirs, ours = oracle.build(oracle.config())
    case = oracle.CASES["video"]
    expected = oracle.expected_logits(theirs, ours.config, case)
    rounded = oracle.expected_logits(copy.deepcopy(theirs).to(torch.bfloat16), ours.config, case)
    error = oracle.our_logits(ours.config, ours.params, case, dtype=jnp.bfloat16) - expected
    assert np.sqrt((error**2).mean()) <= 1.2 * np.sqrt(((rounded - expected) ** 2).mean())


@pytest.mark.parametrize("shape", [(2, 3, 30, 28), (2, 1, 30, 30), (1, 3, 384, 384)])
def test_pictures_of_another_size_are_named(shape):
    with pytest.raises(ConfigError, match=f"{shape[0]} frames or tiles of {shape[1]} x {shape[2]} x {shape[3]}.*3 x 30 x 30"):
        siglip.patchify(jnp.zeros(shape, jnp.uint8), oracle.config().vision)


@pytest.mark.parametrize(
    ("tiles", "size", "names"), [(3, (30, 30), "30 x 30 pixels, expected 2"), (2, None, "one tile, expected 1")]
)
def test_too_many_tiles_are_named(tiles, size, names):
    ours = oracle.build(oracle.config())[1]
    module = functional.bind(ours.config, ours.params)
    with pytest.raises(ConfigError, match=f"{tiles} tiles are given for an image of {names}"):
        module.image(jnp.zeros((tiles, 3, 30, 30), jnp.uint8), size)


def test_captions_need_a_qwen_model(tmp_path, capsys):
    clip = clips.render(tmp_path / "clip.mp4", frames=48)
    assert cli.main(["watch", str(clip), "--model", str(checkpoints.tiny("llava_onevision")), "--no-live"]) == 2
    complaint = capsys.readouterr().err
    assert complaint.count("\n") == 1, complaint
    assert complaint.startswith("svlm: the model is a llava_onevision, which cannot watch: expected one of qwen2_5_vl")
