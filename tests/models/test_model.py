"""The functional boundary, the cache path against the one-shot pass, and what the compiled decode loop must not do."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from svlm_jax.cache.kv import KVStore
from svlm_jax.checkpoint import hf
from svlm_jax.checkpoint.random import random_config
from svlm_jax.errors import ConfigError
from svlm_jax.models import functional
from svlm_jax.models.positions import rope_positions
from svlm_jax.models.qwen2_vl.patches import layout, patchify
from svlm_jax.models.vlm import place
from tests import checkpoints

FAMILIES = ("qwen2_5_vl", "qwen2_vl")


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_are_plain_arrays_and_nothing_else(family):
    cfg = random_config(family)
    params = jax.jit(lambda key: functional.init_params(cfg, key, jnp.bfloat16))(jax.random.key(0))
    leaves, structure = jax.tree.flatten(params)
    assert all(isinstance(leaf, jax.Array) and leaf.dtype == jnp.bfloat16 for leaf in leaves)
    assert structure == jax.tree.structure(functional.abstract_params(cfg))
    _, parameters, rest = nnx.split(functional.bind(cfg, params), nnx.Param, ...)
    assert len(jax.tree.leaves(parameters)) == len(leaves)
    assert not jax.tree.leaves(rest)


def test_random_models_have_logits_of_order_one():
    cfg = random_config("qwen2_5_vl")
    params = jax.jit(lambda key: functional.init_params(cfg, key))(jax.random.key(1))
    tokens = np.arange(12)[None]
    logits = forward(cfg, params, tokens, rope_positions(tokens[0], cfg)[None])
    assert 0.3 < float(logits.std()) < 3


@pytest.mark.parametrize("family", FAMILIES)
def test_streams_see_what_they_would_see_alone(family):
    cfg = random_config(family)
    params = hf.load(checkpoints.tiny(family)).params
    frames = np.random.default_rng(0).integers(0, 256, (3, 4, 3, 84, 140), np.uint8)
    together = see(cfg, params, frames)
    assert together.shape == (3, 2 * 3 * 5, cfg.text.hidden_size)
    np.testing.assert_allclose(together[1], see(cfg, params, frames[1:2])[0], atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 3, 56, 56), (2, 3, 57, 56), (2, 3, 56, 42), (2, 1, 56, 56), (0, 3, 56, 56)])
def test_frames_that_do_not_split_are_named(shape):
    with pytest.raises(ConfigError, match=f"{shape[0]} frames of {shape[1]} x {shape[2]} x {shape[3]}"):
        patchify(jnp.zeros((1, *shape), jnp.uint8), random_config("qwen2_5_vl").vision)


@pytest.mark.parametrize("grid", [(1, 3, 4), (1, 4, 5), (0, 4, 4)])
def test_grids_that_do_not_split_are_named(grid):
    with pytest.raises(ConfigError, match=f"{grid[0]} x {grid[1]} x {grid[2]}"):
        layout(grid, random_config("qwen2_5_vl").vision)


def test_windows_are_cut_from_the_top_left_corner():
    """10 x 6 patches in windows of 4 x 4: two whole rows of windows and a ragged one, two columns, the second 2 wide."""
    place = layout((2, 10, 6), random_config("qwen2_5_vl").vision)
    assert place.windows == (16, 8, 16, 8, 8, 4) * 2
    assert place.grids == (60, 60)
    assert place.rows_cols[:16].max(0).tolist() == [3, 3]
    assert place.rows_cols[16:24].min(0).tolist() == [0, 4]
    assert sorted(place.cells.tolist()) == list(range(30))


def test_without_windows_nothing_moves():
    place = layout((3, 4, 6), random_config("qwen2_vl").vision)
    assert place.cells is None
    assert place.windows == place.grids == (24, 24, 24)


@functools.cache
def loaded():
    return hf.load(checkpoints.tiny())


@functools.partial(jax.jit, static_argnums=0, donate_argnums=4)
def decode(cfg, params, x, positions, cache, slots, query_index, kv_index):
    return functional.bind(cfg, params).decode(x, positions, cache, slots, query_index, kv_index)


@functools.partial(jax.jit, static_argnums=0)
def forward(cfg, params, ids, positions, valid=None):
    return functional.bind(cfg, params)(ids, positions, valid=valid)


@functools.partial(jax.jit, static_argnums=0)
def see(cfg, params, frames):
    return functional.bind(cfg, params).encode_video(frames).tokens


def sequence(batch=2, tokens=21):
    """Different token ids and uneven float positions for every stream."""
    rng = np.random.default_rng(3)
    ids = rng.integers(0, 256, (batch, tokens))
    return ids, np.cumsum(rng.random((batch, 3, tokens)), -1).astype(np.float32)


@pytest.mark.parametrize("pieces", [(21,), (8, 13), (13, 1, 1, 1, 4, 1)])
def test_cached_decoding_equals_one_shot(pieces):
    cfg, params = loaded().config, loaded().params
    ids, positions = sequence()
    batch, total = ids.shape
    expected = forward(cfg, params, ids, positions)
    module = functional.bind(cfg, params)
    capacity = 30
    slots = np.stack([np.random.default_rng(b).permutation(capacity)[:total] for b in range(batch)]).astype(np.int32)
    kv_index = np.full((batch, capacity), -1, np.int32)
    cache, start, hidden = KVStore.empty(cfg.text.kv_shape, batch, capacity, jnp.float32), 0, []
    for count in pieces:
        part = slice(start, start + count)
        order = np.tile(np.arange(start, start + count, dtype=np.int32), (batch, 1))
        np.put_along_axis(kv_index, slots[:, part], order, 1)
        x = module.embed(ids[:, part])
        y, cache = decode(cfg, params, x, positions[:, :, part], cache, slots[:, part], order, kv_index.copy())
        hidden.append(y)
        start += count
    np.testing.assert_allclose(module.logits(jnp.concatenate(hidden, 1)), expected, atol=2e-5)
    # Un-rotated keys and their positions give the rotated ones back.
    at_slot = np.zeros((batch, 3, capacity), np.float32)
    for b in range(batch):
        at_slot[b][:, slots[b]] = positions[b]
    for ours, written in zip(module.rotate(cache.keys, at_slot), cache.rotated, strict=True):
        np.testing.assert_allclose(ours, written, atol=1e-5)
    # ... and other positions give other logits, so that the rotation matters at all.
    assert np.abs(forward(cfg, params, ids, positions[:, :, ::-1]) - expected).max() > 1e-2


def test_tokens_without_a_slot_are_not_kept():
    cfg, params = loaded().config, loaded().params
    ids, positions = sequence()
    x = functional.bind(cfg, params).embed(ids)
    slots = np.where(np.arange(21) % 2, 30, np.arange(21)).astype(np.int32)
    order = np.tile(np.arange(21, dtype=np.int32), (2, 1))
    kv_index = np.full((2, 30), -1, np.int32)
    _, cache = decode(
        cfg, params, x, positions, KVStore.empty(cfg.text.kv_shape, 2, 30, jnp.float32), np.tile(slots, (2, 1)), order, kv_index
    )
    for array in (*cache.keys, *cache.values, *cache.rotated):
        written = np.flatnonzero(np.abs(array).max((0, 1, 3)))
        np.testing.assert_array_equal(written, np.arange(0, 21, 2))


def test_padding_changes_nothing():
    """Padded rows see nothing and are seen by none; their own results are finite."""
    cfg, params = loaded().config, loaded().params
    ids, positions = sequence()
    valid = np.ones(ids.shape, bool)
    valid[:, [4, 9, 20]] = False
    kept = [i for i in range(21) if valid[0, i]]
    padded = forward(cfg, params, ids, positions, valid)
    alone = forward(cfg, params, ids[:, kept], positions[:, :, kept])
    np.testing.assert_allclose(padded[:, kept], alone, atol=2e-5)
    assert np.isfinite(padded).all()


def test_visuals_go_where_the_pads_are():
    x = jnp.zeros((2, 4, 3))
    where = jnp.asarray([[False, True, True, False], [True, False, False, True]])
    out = place(x, where, jnp.arange(1, 5)[:, None] * jnp.ones((4, 3)))
    np.testing.assert_array_equal(out[..., 0], [[0, 1, 2, 0], [3, 0, 0, 4]])


@pytest.mark.parametrize("batch", [1, 2])
def test_decode_loop_updates_the_cache_in_place(batch):
    """A copy of the cache a token would cost more than the attention; donation must give the buffers back."""
    cfg, params = loaded().config, loaded().params
    capacity = 500
    cache = KVStore.empty(cfg.text.kv_shape, batch, capacity, jnp.float32)

    @functools.partial(jax.jit, donate_argnums=1)
    def speak(params, cache, tokens):
        module = functional.bind(cfg, params)

        def one(carry):
            i, cache, tokens, order = carry
            at = jnp.full((batch, 1), i)
            order = jnp.where(jnp.arange(capacity) == i, i, order)
            position = jnp.full((batch, 3, 1), i, jnp.float32)
            hidden, cache = module.decode(module.embed(tokens), position, cache, at, at, order)
            return i + 1, cache, jnp.argmax(module.logits(hidden), -1).astype(jnp.int32), order

        order = jnp.full((batch, capacity), -1)
        return jax.lax.while_loop(lambda carry: carry[0] < 20, one, (0, cache, tokens, order))[1]

    compiled = speak.lower(params, cache, jnp.zeros((batch, 1), jnp.int32)).compile()
    whole = rf"f32\[{batch},{cfg.text.num_kv_heads},{capacity},{cfg.text.head_dim}\]\S* (copy|select|convert|transpose)\("
    assert not re.findall(whole, compiled.as_text())
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(cache))
    assert compiled.memory_analysis().alias_size_in_bytes >= held
    assert compiled.memory_analysis().temp_size_in_bytes < held / 3


def test_positions_of_long_videos():
    """A clip longer in time than in space: text goes on behind it, or, as transformers 5 has it, inside it."""
    cfg = random_config("qwen2_5_vl")
    ids = [1, cfg.vision_start_token_id, *[cfg.video_token_id] * 12, cfg.vision_end_token_id, 2]
    given = {"video_grids": [(6, 2, 4)], "second_per_grid": [1.5]}
    behind = rope_positions(ids, cfg, **given)
    assert behind[:, 2].tolist() == [2, 2, 2]
    assert behind[:, 13].tolist() == [2 + 15, 2, 3]
    assert behind[:, 14].tolist() == [18, 18, 18]
    assert rope_positions(ids, cfg, **given, after_vision="spatial")[:, 14].tolist() == [4, 4, 4]


@pytest.mark.parametrize(
    ("pads", "given", "names"),
    [
        (12, {}, "more videos than there are video grids"),
        (11, {"video_grids": [(6, 2, 4)]}, "do not hold whole blocks"),
        (12, {"video_grids": [(6, 2, 4), (6, 2, 4)]}, "more grids are given"),
        (12, {"video_grids": [(6, 2, 4)], "second_per_grid": [1.0, 1.0]}, "second_per_grid has 2 values"),
    ],
)
def test_grids_that_do_not_fit_the_tokens_are_named(pads, given, names):
    cfg = random_config("qwen2_5_vl")
    with pytest.raises(ConfigError, match=names):
        rope_positions([1, *[cfg.video_token_id] * pads, 2], cfg, **given)


def test_two_blocks_without_a_separator():
    cfg = random_config("qwen2_vl")
    positions = rope_positions([cfg.image_token_id] * 3, cfg, image_grids=[(1, 2, 2), (1, 2, 4)])
    assert positions.tolist() == [[0, 1, 1], [0, 1, 1], [0, 1, 2]]
