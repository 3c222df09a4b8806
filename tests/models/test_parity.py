"""Logits of all tokens equal `transformers`', and would not if any one feature were missing."""

import contextlib
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from svlm_jax.models import functional
from svlm_jax.models import rope as rope_module
from svlm_jax.models.attention import causal_attention
from svlm_jax.models.positions import rope_positions
from svlm_jax.models.qwen2_vl import patches as grid_module
from svlm_jax.models.qwen2_vl import tower as vision_module
from tests.models import oracle

FAMILIES = ("qwen2_5_vl", "qwen2_vl")
ATOL = 1e-4


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {(family, tied): tmp_path_factory.mktemp(family) for family in FAMILIES for tied in (False, True)}


def difference(folders, family, name, *, tied=False, change=lambda cfg: cfg):
    model, ours = oracle.oracle(family, folders[family, tied], tied=tied)
    case = oracle.CASES[name]
    expected = oracle.expected_logits(model, ours.config, case)
    assert np.abs(expected).max() > 0.5, "logits near zero would agree with anything"
    return np.abs(oracle.our_logits(change(ours.config), ours.params, case) - expected).max()


@pytest.mark.parametrize("name", oracle.CASES)
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_equal_transformers(folders, family, name):
    assert difference(folders, family, name) <= ATOL


@pytest.mark.parametrize("family", FAMILIES)
def test_tied_head(folders, family):
    assert difference(folders, family, "image_and_video", tied=True) <= ATOL


def vision_change(**fields):
    return lambda cfg: dataclasses.replace(cfg, vision=dataclasses.replace(cfg.vision, **fields))


@pytest.mark.parametrize("name", ["one_image", "video"])
def test_without_windows_parity_fails(folders, name):
    assert difference(folders, "qwen2_5_vl", name, change=vision_change(window_size=0)) > 100 * ATOL


def test_with_windows_one_cell_too_wide_parity_fails(folders):
    assert difference(folders, "qwen2_5_vl", "video", change=vision_change(window_size=24)) > 100 * ATOL


def test_without_full_blocks_parity_fails(folders):
    assert difference(folders, "qwen2_5_vl", "video", change=vision_change(fullatt_block_indexes=())) > 100 * ATOL


@pytest.mark.parametrize("family", FAMILIES)
def test_without_segments_per_temporal_grid_parity_fails(folders, family, monkeypatch):
    layout = grid_module.layout

    def one_segment(grid, cfg):
        place = layout(grid, cfg)
        whole = (sum(place.grids),)
        windows = place.windows if cfg.window_size else whole
        return dataclasses.replace(place, grids=whole, windows=windows)

    monkeypatch.setattr(vision_module, "layout", one_segment)
    assert difference(folders, family, "video") > 100 * ATOL
    assert difference(folders, family, "one_image") <= ATOL, "one temporal grid has nothing to segment"


@pytest.mark.parametrize("family", FAMILIES)
def test_with_other_mrope_sections_parity_fails(folders, family):
    def change(cfg):
        return dataclasses.replace(cfg, text=dataclasses.replace(cfg.text, mrope_section=(4, 0, 0)))

    assert difference(folders, family, "video", change=change) > 100 * ATOL
    assert difference(folders, family, "text", change=change) <= ATOL, "text moves along all axes alike"


@pytest.mark.parametrize("per_second", [2.0, None])
def test_with_other_tokens_per_second_parity_fails(folders, per_second):
    change = vision_change(tokens_per_second=per_second)
    assert difference(folders, "qwen2_5_vl", "slow_video", change=change) > 100 * ATOL


def test_with_tanh_gelu_in_the_merger_parity_fails(folders, monkeypatch):
    """The approximation differs by up to 5e-4: small enough to slip through a loose test."""
    _, ours = oracle.oracle("qwen2_5_vl", folders["qwen2_5_vl", False])
    patches = oracle.CASES["one_image"].patches((1, 6, 10), ours.config.vision.patch_values, 1)

    def tower():
        functional._skeleton.cache_clear()  # the activation is part of the cached structure
        return jax.jit(lambda params: functional.bind(ours.config, params).vision(patches, (1, 6, 10)).tokens)(ours.params)

    exact = tower()
    with monkeypatch.context() as patch:
        patch.setattr(vision_module, "exact_gelu", jax.nn.gelu)
        approximate = tower()
    functional._skeleton.cache_clear()
    assert np.abs(exact - approximate).max() > ATOL


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("grid", [(1, 2, 2), (2, 10, 6), (1, 8, 12)])
def test_vision_tower(folders, family, grid):
    torch = pytest.importorskip("torch")
    model, ours = oracle.oracle(family, folders[family, False])
    patches = oracle.CASES["video"].patches(grid, ours.config.vision.patch_values, 7)
    with torch.no_grad():
        expected = model.model.visual(torch.tensor(patches), grid_thw=torch.tensor([grid])).pooler_output.numpy()

    @functools.partial(jax.jit, static_argnums=1)
    def tower(params, implementation):
        return functional.bind(ours.config, params).vision(patches, grid, implementation=implementation).tokens

    for implementation in ("reference", "xla"):
        np.testing.assert_allclose(tower(ours.params, implementation), expected, atol=ATOL)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_decoder_layer(folders, family):
    """The ladder below the logits: the hidden state after each layer."""
    torch = pytest.importorskip("torch")
    model, ours = oracle.oracle(family, folders[family, False])
    tokens = oracle.CASES["text"].tokens
    with torch.no_grad():
        states = model.model(input_ids=torch.tensor(tokens)[None], output_hidden_states=True).hidden_states
    positions = rope_positions(tokens, ours.config)[None]
    module = functional.bind(ours.config, ours.params)
    x = module.embed(tokens[None])
    np.testing.assert_array_equal(x, states[0].numpy())
    order = jnp.arange(len(tokens))[None]
    tables = module.decoder.rope_tables(positions, heads_axis=2)
    attention_fn = causal_attention(tables, scale=ours.config.text.head_dim**-0.5, order=order, implementation="xla")
    for block, expected in zip(module.decoder.layers, states[1:], strict=True):
        x = block.forward_with(x, functools.partial(attention_fn, 0))
        if block is not module.decoder.layers[-1]:  # the last one is reported after the norm
            np.testing.assert_allclose(x, expected.numpy(), atol=ATOL)
    np.testing.assert_allclose(module.decoder.norm(x), states[-1].numpy(), atol=ATOL)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", oracle.CASES)
def test_positions(folders, family, name):
    torch = pytest.importorskip("torch")
    model, ours = oracle.oracle(family, folders[family, False])
    case = oracle.CASES[name]
    if not case.image_grids and not case.video_grids:
        pytest.skip("the oracle numbers text elsewhere")
    ids = torch.tensor(case.tokens)[None]
    kinds = (ids == oracle.IMAGE) * 1 + (ids == oracle.VIDEO) * 2
    grids = {k: torch.tensor(g) if g else None for k, g in (("image", case.image_grids), ("video", case.video_grids))}
    expected, _ = model.model.get_rope_index(
        ids,
        mm_token_type_ids=kinds,
        image_grid_thw=grids["image"],
        video_grid_thw=grids["video"],
        second_per_grid_ts=torch.tensor(case.second_per_grid) if case.second_per_grid else None,
    )
    seconds = case.second_per_grid or None
    given = {"image_grids": case.image_grids, "video_grids": case.video_grids, "second_per_grid": seconds}
    ours_now = rope_positions(case.tokens, ours.config, **given, after_vision="spatial")
    np.testing.assert_array_equal(ours_now, expected[:, 0].numpy())


# A product's inputs, its result and the residual sum it is added to are rounded as its weights are: four independent
# roundings of one size are twice as far as one. A quarter above that is for chance. No other library's bfloat16 is asked: its
# rounding depends on the processor.
MOST_BFLOAT16_ERROR = 2.5


def bfloat16_error(ours, case, change=contextlib.nullcontext):
    """How far all in bfloat16 is from float32, by how far weights rounded to bfloat16 are (root mean squares of logits)."""
    exact = oracle.our_logits(ours.config, ours.params, case)
    weights = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(jnp.float32), ours.params)
    weights_rounded = oracle.our_logits(ours.config, weights, case) - exact
    with change():
        all_rounded = oracle.our_logits(ours.config, ours.params, case, dtype=jnp.bfloat16) - exact
    return np.sqrt((all_rounded**2).mean() / (weights_rounded**2).mean())


@pytest.mark.parametrize("name", ["text", "video", "image_and_video"])
@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_rounds_no_more_than_products_and_sums(folders, family, name):
    _, ours = oracle.oracle(family, folders[family, False])
    assert bfloat16_error(ours, oracle.CASES[name]) <= MOST_BFLOAT16_ERROR


def test_with_angles_in_bfloat16_it_rounds_more(folders, monkeypatch):
    """A thousand positions into a stream, where bfloat16 is off by whole positions."""
    _, ours = oracle.oracle("qwen2_5_vl", folders["qwen2_5_vl", False])
    monkeypatch.setattr(oracle, "rope_positions", lambda *given, **more: rope_positions(*given, **more) + 1001)

    @contextlib.contextmanager
    def low_angles():
        exact = rope_module.cos_sin
        with monkeypatch.context() as patch:
            patch.setattr(rope_module, "cos_sin", lambda angles: exact(angles.astype(jnp.bfloat16).astype(jnp.float32)))
            yield

    assert bfloat16_error(ours, oracle.CASES["text"]) <= MOST_BFLOAT16_ERROR
    assert bfloat16_error(ours, oracle.CASES["text"], low_angles) > 2 * MOST_BFLOAT16_ERROR
