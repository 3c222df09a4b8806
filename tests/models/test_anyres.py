"""Tiled images: geometry and counts of tokens are those of `transformers`."""

from types import SimpleNamespace

import numpy as np
import pytest

from svlm_jax.errors import ConfigError
from svlm_jax.models.llava_onevision.anyres import best_canvas, image_tokens, tiling
from svlm_jax.models.llava_onevision.config import SiglipConfig, default_pinpoints
from svlm_jax.models.presets import preset


def released() -> SiglipConfig:
    return preset("llava-onevision-qwen2-7b-ov").vision


def sizes():
    """(height, width) of common videos and photos, thin strips, and noise."""
    common = [(384, 384), (720, 1280), (1080, 1920), (360, 640), (480, 640), (3000, 4000), (4000, 3000), (2304, 2304)]
    strips = [(20, 1000), (1000, 20), (1, 40_000), (384, 385), (385, 384), (1, 1), (2304, 384)]
    noise = np.random.default_rng(0).integers(1, 3000, (300, 2))
    return [*common, *strips, *(tuple(int(side) for side in size) for size in noise)]


def test_canvases_are_those_of_transformers():
    processing = pytest.importorskip("transformers.image_processing_utils")
    canvases = released().grid_pinpoints
    assert len(canvases) == 36
    for size in sizes():
        assert best_canvas(size, canvases) == processing.select_best_resolution(size, [list(c) for c in canvases]), size
        fitted = processing.get_patch_output_size(
            np.zeros((3, *size), np.uint8), tiling(size, released()).canvas, "channels_first"
        )
        assert tiling(size, released()).fitted == fitted, size


def test_token_counts_are_those_of_transformers():
    processing = pytest.importorskip("transformers.models.llava_onevision.processing_llava_onevision")
    cfg = released()
    counter = object.__new__(processing.LlavaOnevisionProcessor)  # without a tokenizer
    counter.image_processor = SimpleNamespace(image_grid_pinpoints=[list(canvas) for canvas in cfg.grid_pinpoints])
    counter.num_image_tokens, counter.vision_aspect_ratio = 729, "anyres_max_9"
    for size in sizes():
        assert image_tokens(size, cfg) == counter._get_number_of_features(*size, 384, 384), size


# Worked out by hand from the paper: 27 x 27 patches a tile.
@pytest.mark.parametrize(
    ("size", "canvas", "tiles", "kept"),
    [
        ((384, 384), (384, 384), (1, 1), (27, 27)),
        ((768, 768), (768, 768), (2, 2), (54, 54)),
        ((384, 768), (384, 768), (1, 2), (27, 54)),
        ((360, 640), (384, 768), (1, 2), (27, 48)),  # 27 patches up, 640 / 360 · 27 = 48 across, the rest is padding
        ((2304, 2304), (2304, 2304), (6, 6), (81, 81)),  # 36 tiles, shrunk to 9
    ],
)
def test_known_tilings(size, canvas, tiles, kept):
    place = tiling(size, released())
    assert (place.canvas, place.tiles, place.kept) == (canvas, tiles, kept)
    assert place.tile_count == 1 + tiles[0] * tiles[1]
    assert image_tokens(size, released()) == 729 + kept[0] * (kept[1] + 1)


def test_one_of_several_images_and_videos():
    cfg = released()
    assert image_tokens((720, 1280), cfg, tiled=False) == 730
    assert (cfg.side, cfg.pooled_side, cfg.clip_tokens(32, 720, 1280)) == (27, 14, 32 * 196)
    assert cfg.clip_patches(32 * 196) == 32 * 729


@pytest.mark.parametrize("size", [(0, 5), (5, -1)])
def test_images_without_a_picture_are_named(size):
    with pytest.raises(ConfigError, match=f"{size[0]} x {size[1]} pixels"):
        tiling(size, released())


def test_default_canvases():
    assert default_pinpoints(384, 6)[:2] == ((384, 384), (384, 768))
    assert default_pinpoints(30, 2) == ((30, 30), (30, 60), (60, 30), (60, 60))
