"""A tiny random LLaVA-OneVision in `transformers`, with its own processor in front of it: the oracle of the parity tests."""

import dataclasses
import functools
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from svlm_jax.checkpoint import hf
from svlm_jax.checkpoint.random import random_config
from svlm_jax.data.images import image_tile, image_tiles
from svlm_jax.models import functional, registry
from svlm_jax.models.config import ModelConfig
from svlm_jax.models.functional import Params
from svlm_jax.models.llava_onevision.anyres import image_tokens
from svlm_jax.models.positions import rope_positions
from svlm_jax.models.vlm import VisionFeatures
from svlm_jax.video.resize import resize
from tests.models import oracle

IMAGE, VIDEO = 311, 306
# Text of so many tokens, an image of (height, width), or a video of so many frames, (frames, height, width).
Part = int | tuple[int, int] | tuple[int, int, int]

CASES: dict[str, tuple[Part, ...]] = {
    "text": (23,),
    "square_image": (5, (30, 30), 7),  # a canvas of one tile
    "wide_image": (5, (40, 75), 7),
    "tall_image": (4, (83, 36), 6),
    "large_image": (4, (200, 170), 6),  # 9 tiles, shrunk to 4 tiles' worth of tokens
    "narrow_image": (4, (90, 11), 6),
    "image_with_text_between": (4, (47, 61), 6, 3),
    "two_images": (4, (40, 75), 6, (61, 30), 3),  # one tile each
    "video": (3, (3, 25, 44), 9),
    "image_and_video": (3, (40, 75), 6, (2, 30, 30), 5),
}


def config(**vision: Any) -> ModelConfig:
    """Two layers each of tower and decoder, keys that heads share, tiles of 7 x 7 patches and some pixels more."""
    cfg = random_config("llava_onevision")
    text = dataclasses.replace(
        cfg.text, hidden_size=48, intermediate_size=80, num_layers=2, num_heads=6, head_dim=8, mrope_section=(4, 0, 0)
    )
    small = {"depth": 2, "hidden_size": 32, "num_heads": 4, "intermediate_size": 56, "out_hidden_size": 48}
    statistics = {"image_mean": (0.4, 0.5, 0.6), "image_std": (0.3, 0.25, 0.2)}
    tower = dataclasses.replace(cfg.vision, **{**small, "feature_layers": (2,), **statistics, **vision})
    return dataclasses.replace(cfg, text=text, vision=tower)


@functools.cache
def build(cfg: ModelConfig) -> tuple[Any, hf.Checkpoint]:
    """The model of `transformers`, and the same weights written by it and read by us."""
    pytest.importorskip("torch").set_num_threads(1)
    transformers = pytest.importorskip("transformers")
    raw = registry.config_to_hf(cfg)
    model = transformers.LlavaOnevisionForConditionalGeneration(transformers.LlavaOnevisionConfig.from_dict(raw))
    model = oracle.randomise(model, 0)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        processor(cfg).save_pretrained(folder)
        return model, hf.load(folder)


def processor(cfg: ModelConfig) -> Any:
    """The image processor of `transformers` that works with Pillow."""
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil

    vision = cfg.vision
    return LlavaOnevisionImageProcessorPil(
        size={"height": vision.image_size, "width": vision.image_size},
        image_grid_pinpoints=[list(point) for point in vision.grid_pinpoints],
        image_mean=list(vision.image_mean),
        image_std=list(vision.image_std),
    )


def pictures(parts: tuple[Part, ...]) -> list[np.ndarray]:
    """Noise for every image (H, W, 3) and video (F, H, W, 3), uint8, in order."""
    rng = np.random.default_rng(len(parts))
    return [rng.integers(0, 256, (*part, 3), np.uint8) for part in parts if isinstance(part, tuple)]


def tokens(cfg: ModelConfig, parts: tuple[Part, ...]) -> np.ndarray:
    """Random text, and as many pads as each image or video has tokens by our count; `transformers` refuses other counts."""
    rng = np.random.default_rng(0)
    alone = sum(isinstance(part, tuple) and len(part) == 2 for part in parts) == 1
    ids: list[int] = []
    for part in parts:
        if isinstance(part, int):
            ids += rng.integers(0, 256, part).tolist()
        elif len(part) == 2:
            ids += [IMAGE] * image_tokens(part, cfg.vision, tiled=alone)
        else:
            ids += [VIDEO] * (cfg.vision.clip_tokens(*part) + 1)
    return np.asarray(ids)


def expected_logits(model: Any, cfg: ModelConfig, parts: tuple[Part, ...]) -> np.ndarray:
    """(T, V) of the oracle."""
    import torch

    given: dict[str, Any] = {"input_ids": torch.tensor(tokens(cfg, parts))[None]}
    seen = pictures(parts)
    images = [picture for picture in seen if picture.ndim == 3]
    if images:
        read = processor(cfg)([images], return_tensors="pt")
        given |= {name: read[name] for name in ("pixel_values", "image_sizes")}
        given["batch_num_images"] = torch.tensor([len(images)])
    for video in (picture for picture in seen if picture.ndim == 4):
        side = cfg.vision.image_size
        frames = np.stack([resize(frame, (side, side)) for frame in video]).transpose(0, 3, 1, 2) / 255.0
        mean, std = (np.asarray(a)[:, None, None] for a in (cfg.vision.image_mean, cfg.vision.image_std))
        given["pixel_values_videos"] = torch.tensor((frames - mean) / std, dtype=torch.float32)[None]
    with torch.no_grad():
        return model(**given).logits[0].float().numpy()


def our_logits(
    cfg: ModelConfig, params: Params, parts: tuple[Part, ...], *, dtype: Any = jnp.float32, salt: str = ""
) -> np.ndarray:
    """(T, V) of this package, through its own reading of pictures and the public one-shot forward pass.

    Tests that change the code under jit pass a `salt` of their own: programs are traced once for each.
    """
    seen = pictures(parts)
    alone = sum(picture.ndim == 3 for picture in seen) == 1
    side = cfg.vision.image_size
    tiles: list[np.ndarray] = []
    sizes: list[Any] = []
    for picture in seen:
        if picture.ndim == 4:
            tiles.append(np.stack([resize(frame, (side, side)) for frame in picture]).transpose(0, 3, 1, 2))
            sizes.append("video")
        else:
            tiles.append((image_tiles if alone else image_tile)(picture, cfg.vision))
            sizes.append(picture.shape[:2] if alone else None)
    ids = tokens(cfg, parts)
    params = jax.tree.map(lambda x: x.astype(dtype), params)
    return np.asarray(_forward(cfg, tuple(sizes), salt, params, ids[None], rope_positions(ids, cfg)[None], tiles))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _forward(
    cfg: ModelConfig,
    sizes: tuple[Any, ...],
    salt: str,
    params: Params,
    ids: jax.Array,
    positions: jax.Array,
    tiles: list[jax.Array],
) -> jax.Array:
    module = functional.bind(cfg, params)
    found = [module.video(t) if size == "video" else module.image(t, size) for t, size in zip(tiles, sizes, strict=True)]
    return module(ids, positions, VisionFeatures(jnp.concatenate(found)) if found else None)[0]
