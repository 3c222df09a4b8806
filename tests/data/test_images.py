"""Tiles of pictures: the same pixels as those of the processor of `transformers` that works with Pillow."""

import numpy as np
import pytest

from svlm_jax.data.images import image_tile, image_tiles
from svlm_jax.errors import ConfigError
from svlm_jax.models.llava_onevision.anyres import tiling
from tests.models import llava_oracle as oracle


def picture(height, width):
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)


def normalised(tiles, cfg):
    mean, std = (np.asarray(a, np.float32)[:, None, None] for a in (cfg.image_mean, cfg.image_std))
    return (tiles / np.float32(255) - mean) / std


@pytest.mark.parametrize("size", [(30, 30), (40, 75), (83, 36), (200, 170), (90, 11), (31, 29), (8, 9)])
def test_tiles_are_those_of_transformers(size):
    pytest.importorskip("transformers")
    cfg = oracle.config()
    tiles = image_tiles(picture(*size), cfg.vision)
    assert tiles.dtype == np.uint8
    assert len(tiles) == tiling(size, cfg.vision).tile_count
    read = oracle.processor(cfg)(picture(*size), return_tensors="np")
    np.testing.assert_allclose(normalised(tiles, cfg.vision), read["pixel_values"][0], atol=1e-5)
    assert tuple(read["image_sizes"][0]) == size


@pytest.mark.parametrize("size", [(30, 30), (40, 75), (83, 36)])
def test_one_of_several_is_that_of_transformers(size):
    pytest.importorskip("transformers")
    cfg = oracle.config()
    tile = image_tile(picture(*size), cfg.vision)
    read = oracle.processor(cfg)([[picture(*size), picture(20, 20)]], return_tensors="np")
    np.testing.assert_allclose(normalised(tile, cfg.vision), read["pixel_values"][0], atol=1e-5)


def test_padding_is_black_and_on_both_sides():
    cfg = oracle.config().vision
    white = np.full((20, 60, 3), 255, np.uint8)
    place = tiling((20, 60), cfg)
    overview, *tiles = image_tiles(white, cfg)
    assert (overview == 255).all()
    column = np.concatenate([tile[0, :, 0] for tile in tiles[:: place.tiles[1]]])
    above = (place.canvas[0] - place.fitted[0]) // 2
    assert above > 0
    assert (column[:above] == 0).all()
    assert (column[above : above + place.fitted[0]] == 255).all()
    assert (column[above + place.fitted[0] :] == 0).all()


@pytest.mark.parametrize("bad", [np.zeros((5, 5), np.uint8), np.zeros((5, 5, 4), np.uint8), np.zeros((5, 5, 3), np.float32)])
def test_what_is_no_picture_is_named(bad):
    with pytest.raises(ConfigError, match=f"{bad.dtype} of shape"):
        image_tiles(bad, oracle.config().vision)
