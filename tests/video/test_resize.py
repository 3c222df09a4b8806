"""The model's frame size and the way a decoded frame gets there."""

import dataclasses

import numpy as np
import pytest
import torch
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize as oracle

from svlm_jax.checkpoint.random import random_config
from svlm_jax.errors import ConfigError, SourceError
from svlm_jax.models import registry
from svlm_jax.models.presets import PRESETS, preset
from svlm_jax.models.resize_rule import PUBLISHED, ResizeRule
from svlm_jax.video.resize import resize, smart_resize


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((360, 640), (364, 644)),
        ((480, 854), (476, 840)),
        ((720, 1280), (560, 1008)),
        ((1080, 1920), (560, 1008)),
        ((1920, 1080), (1008, 560)),
        ((1, 1), (280, 280)),
    ],
)
def test_published_sizes(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert smart_resize(*size) == expected


def test_any_size_equals_transformers() -> None:
    rng = np.random.default_rng(0)
    for height, width in rng.integers(28, 4000, (2000, 2)).tolist():
        if max(height, width) / min(height, width) < 100:
            assert smart_resize(height, width) == oracle(height, width, 28, 78_400, 602_112)


def test_every_size_keeps_the_bounds() -> None:
    rng = np.random.default_rng(1)
    for height, width in rng.integers(1, 5000, (5000, 2)).tolist():
        if max(height, width) > 200 * min(height, width):
            continue
        for cap in (78_400, 234_416, 602_112):
            rows, columns = smart_resize(height, width, PUBLISHED.at_most(cap))
            assert rows % 28 == columns % 28 == 0
            assert rows >= 28 and columns >= 28 and rows * columns <= cap


@pytest.mark.parametrize("size", [(10, 2001), (2001, 10), (0, 10), (10, -1)])
def test_no_picture(size: tuple[int, int]) -> None:
    with pytest.raises(SourceError, match=f"{size[1]}x{size[0]}"):
        smart_resize(*size)


def test_bounds_that_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="min_pixels=2000"):
        dataclasses.replace(PUBLISHED, min_pixels=2000, max_pixels=1000)


def test_fewer_pixels_than_a_token() -> None:
    with pytest.raises(ConfigError, match=r"max_pixels=700 cannot be met.* 28x28"):
        PUBLISHED.at_most(700)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_family_has_its_rule(name: str) -> None:
    """Of Qwen2 the published numbers of StreamingVLM, whose tower has tokens of 28 pixels a side."""
    rule = registry.resize_rule(preset(name))
    qwen3 = ResizeRule(32, 2, 131_072, 786_432, 117_964_800)
    expected = {"qwen2": PUBLISHED, "qwen3": qwen3, "llava": ResizeRule.fixed(384)}
    assert rule == next(value for family, value in expected.items() if name.startswith(family))


def test_sides_are_multiples_of_the_model_s_own_token() -> None:
    """A picture of each family, as its tower takes it."""
    for family in registry.FAMILIES:
        config = random_config(family)
        height, width = smart_resize(720, 1280, registry.resize_rule(config))
        assert config.vision.clip_grid(config.vision.grid_frames, height, width, 2.0).patches > 0


@pytest.mark.parametrize(
    ("frames", "total", "expected"), [(2, 90_316_800, 602_112), (48, 19_267_584, 602_112), (128, 19_267_584, 301_056)]
)
def test_total_budget(frames: int, total: int, expected: int) -> None:
    assert dataclasses.replace(PUBLISHED, total_pixels=total).for_clip(frames).max_pixels == expected


def test_total_budget_never_falls_below_the_floor() -> None:
    assert dataclasses.replace(PUBLISHED, total_pixels=1_000_000).for_clip(10_000).max_pixels == int(1.05 * 78_400)


@pytest.mark.parametrize(("source", "size"), [((108, 192), (56, 84)), ((50, 60), (84, 112)), ((90, 91), (84, 84))])
def test_resize_is_bicubic_with_antialiasing(source: tuple[int, int], size: tuple[int, int]) -> None:
    image = np.random.default_rng(2).integers(0, 256, (*source, 3), np.uint8)
    planes = torch.from_numpy(image).permute(2, 0, 1)[None]
    expected = torch.nn.functional.interpolate(planes, size, mode="bicubic", antialias=True)[0].permute(1, 2, 0).numpy()
    got = resize(image, size)
    assert got.dtype == np.uint8
    assert np.abs(got.astype(int) - expected).max() <= 1
    blunt = torch.nn.functional.interpolate(planes.float(), size, mode="bicubic", antialias=False)[0].permute(1, 2, 0).numpy()
    if size < source:
        assert np.abs(got - blunt).max() > 20  # the test notices a resize without antialiasing
