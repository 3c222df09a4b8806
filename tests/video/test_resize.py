"""The model's frame size and the way a decoded frame gets there."""

import numpy as np
import pytest
import torch
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize as oracle

from svlm_jax.errors import ConfigError, SourceError
from svlm_jax.video.resize import MAX_PIXELS, MIN_PIXELS, frame_pixel_cap, resize, smart_resize


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
            assert smart_resize(height, width) == oracle(height, width, 28, MIN_PIXELS, MAX_PIXELS)


def test_every_size_keeps_the_bounds() -> None:
    rng = np.random.default_rng(1)
    for height, width in rng.integers(1, 5000, (5000, 2)).tolist():
        if max(height, width) > 200 * min(height, width):
            continue
        for cap in (MIN_PIXELS, 234_416, MAX_PIXELS):
            rows, columns = smart_resize(height, width, max_pixels=cap)
            assert rows % 28 == columns % 28 == 0
            assert rows >= 28 and columns >= 28 and rows * columns <= cap


@pytest.mark.parametrize("size", [(10, 2001), (2001, 10), (0, 10), (10, -1)])
def test_no_picture(size: tuple[int, int]) -> None:
    with pytest.raises(SourceError, match=f"{size[1]}x{size[0]}"):
        smart_resize(*size)


def test_bounds_that_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="min_pixels=2000"):
        smart_resize(100, 100, min_pixels=2000, max_pixels=1000)


@pytest.mark.parametrize(
    ("frames", "total", "expected"), [(2, 90_316_800, 602_112), (48, 19_267_584, 602_112), (128, 19_267_584, 301_056)]
)
def test_total_budget(frames: int, total: int, expected: int) -> None:
    assert frame_pixel_cap(frames, total_pixels=total) == expected


def test_total_budget_never_falls_below_the_floor() -> None:
    assert frame_pixel_cap(10_000, total_pixels=1_000_000) == int(1.05 * MIN_PIXELS)


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
