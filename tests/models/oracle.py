"""Tiny random Qwen models made by `transformers`, and what it computes with them: the oracle of the parity tests."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from svlm_jax.checkpoint import hf
from svlm_jax.models import functional
from svlm_jax.models.config import ModelConfig
from svlm_jax.models.functional import Params
from svlm_jax.models.positions import rope_positions
from svlm_jax.models.qwen2_vl.patches import Grid

VOCAB = 320
VISION_START, VISION_END, VIDEO, IMAGE = 304, 305, 306, 311

_TEXT = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [1, 1, 2]},
    "bos_token_id": 300,
    "eos_token_id": 301,
}
_VISION: dict[str, dict[str, Any]] = {
    "qwen2_5_vl": {
        "depth": 3,
        "hidden_size": 32,
        "intermediate_size": 56,
        "num_heads": 2,
        "out_hidden_size": 48,
        "patch_size": 4,
        "window_size": 16,
        "fullatt_block_indexes": [1],
        "tokens_per_second": 3,
    },
    "qwen2_vl": {"depth": 2, "embed_dim": 32, "hidden_size": 48, "num_heads": 2, "mlp_ratio": 2, "patch_size": 4},
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One sequence: ids, the patches and grids of its images and videos, and the seconds between temporal grids."""

    tokens: np.ndarray
    image_grids: tuple[Grid, ...] = ()
    video_grids: tuple[Grid, ...] = ()
    second_per_grid: tuple[float, ...] = ()

    def patches(self, grid: Grid, values: int, seed: int) -> np.ndarray:
        """Noise: flat pictures would hide wrong masks and wrong orders."""
        return np.random.default_rng(seed).standard_normal((int(np.prod(grid)), values)).astype(np.float32)


def sequence(*parts: int | tuple[str, Grid], seed: int = 0) -> np.ndarray:
    """Random text of so many tokens, and the pads of ("image" | "video", grid), wrapped in vision marks."""
    rng = np.random.default_rng(seed)
    ids: list[int] = []
    for part in parts:
        if isinstance(part, int):
            ids += rng.integers(0, 256, part).tolist()
        else:
            kind, (t, h, w) = part
            ids += [VISION_START, *[IMAGE if kind == "image" else VIDEO] * (t * h * w // 4), VISION_END]
    return np.asarray(ids)


CASES = {
    "text": Case(sequence(23)),
    "one_image": Case(sequence(5, ("image", (1, 6, 10)), 7), image_grids=((1, 6, 10),)),
    "two_images": Case(sequence(4, ("image", (1, 10, 6)), 6, ("image", (1, 4, 14)), 5), image_grids=((1, 10, 6), (1, 4, 14))),
    # 10 x 6 patches are 5 x 3 cells: windows of 2 x 2 cells end raggedly on both sides.
    "video": Case(sequence(3, ("video", (3, 10, 6)), 9), video_grids=((3, 10, 6),), second_per_grid=(1.0,)),
    "slow_video": Case(sequence(3, ("video", (4, 6, 10)), 8), video_grids=((4, 6, 10),), second_per_grid=(0.6,)),
    "image_and_video": Case(
        sequence(3, ("video", (2, 6, 6)), 4, ("image", (1, 6, 10)), 3, ("video", (3, 4, 6)), 6),
        image_grids=((1, 6, 10),),
        video_grids=((2, 6, 6), (3, 4, 6)),
        second_per_grid=(1.5, 0.5),
    ),
}


def build(family: str, *, tied: bool = False, seed: int = 0) -> Any:
    """A `transformers` model in float32 whose every parameter is random, norms and biases too."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.set_num_threads(1)  # models this small only wait for more
    names = {"qwen2_5_vl": "Qwen2_5_VL", "qwen2_vl": "Qwen2VL"}
    config = getattr(transformers, f"{names[family]}Config")(
        text_config=dict(_TEXT),
        vision_config={"spatial_merge_size": 2, "temporal_patch_size": 2, **_VISION[family]},
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=VISION_START,
        vision_end_token_id=VISION_END,
        tie_word_embeddings=tied,
    )
    return randomise(getattr(transformers, f"{names[family]}ForConditionalGeneration")(config), seed)


def randomise(model: Any, seed: int) -> Any:
    """The model in float32, with every parameter random."""
    import torch

    model = model.eval().float()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            scale = 0.3 if parameter.ndim == 1 else 1.5 / np.sqrt(parameter[0].numel())
            parameter.copy_(noise * scale + (1.0 if "norm" in name or "ln_q" in name else 0.0) * (parameter.ndim == 1))
    return model


def expected_logits(model: Any, cfg: ModelConfig, case: Case) -> np.ndarray:
    """(T, V) of the oracle."""
    import torch

    ids = torch.tensor(case.tokens)[None]
    kinds = (ids == cfg.image_token_id) * 1 + (ids == cfg.video_token_id) * 2
    given: dict[str, Any] = {"mm_token_type_ids": kinds}  # without them it silently uses 1-D positions
    for kind, grids, prefix in (
        ("image", case.image_grids, "pixel_values"),
        ("video", case.video_grids, "pixel_values_videos"),
    ):
        if grids:
            given[prefix] = torch.tensor(np.concatenate(pixels(cfg, case, kind)))
            given[f"{kind}_grid_thw"] = torch.tensor(grids)
    if case.second_per_grid:
        given["second_per_grid_ts"] = torch.tensor(case.second_per_grid)
    with torch.no_grad():
        return model(input_ids=ids, **given).logits[0].float().numpy()


def pixels(cfg: ModelConfig, case: Case, kind: str) -> list[np.ndarray]:
    grids, base = (case.image_grids, 100) if kind == "image" else (case.video_grids, 200)
    return [case.patches(grid, cfg.vision.patch_values, base + i) for i, grid in enumerate(grids)]


def our_logits(cfg: ModelConfig, params: Params, case: Case, *, dtype: Any = jnp.float32) -> np.ndarray:
    """(T, V) of this package, through the public one-shot forward pass."""
    positions = rope_positions(
        case.tokens,
        cfg,
        image_grids=case.image_grids,
        video_grids=case.video_grids,
        second_per_grid=case.second_per_grid or None,
        after_vision="spatial",
    )
    grids = {"image": case.image_grids, "video": case.video_grids}
    patches = {kind: pixels(cfg, case, kind) for kind in grids}
    blocks = appearance(cfg, case)

    @functools.partial(jax.jit, static_argnums=0)
    def forward(cfg: ModelConfig, params: Params, tokens: jax.Array, positions: jax.Array, patches: Any) -> jax.Array:
        module = functional.bind(cfg, params)
        seen = {kind: [module.vision(p, g) for p, g in zip(patches[kind], grids[kind], strict=True)] for kind in grids}
        whole = {kind: jax.tree.map(lambda *parts: jnp.concatenate(parts), *seen[kind]) for kind in seen if seen[kind]}
        order = [jax.tree.map(lambda x, at=at: x[at], whole[kind]) for kind, at in blocks]
        return module(tokens, positions, jax.tree.map(lambda *parts: jnp.concatenate(parts), *order) if order else None)[0]

    params = jax.tree.map(lambda x: x.astype(dtype), params)
    return np.asarray(forward(cfg, params, case.tokens[None], positions[None], patches))


def appearance(cfg: ModelConfig, case: Case) -> list[tuple[str, slice]]:
    """Whether each block of pads is of an "image" or a "video", in order, and which tokens of all of its kind it holds."""
    starts, ends = (np.flatnonzero(case.tokens == mark) for mark in (cfg.vision_start_token_id, cfg.vision_end_token_id))
    used, blocks = {"image": 0, "video": 0}, []
    for first, end in zip(starts + 1, ends, strict=True):
        kind = "image" if case.tokens[first] == cfg.image_token_id else "video"
        blocks.append((kind, slice(used[kind], used[kind] + int(end - first))))
        used[kind] += int(end - first)
    return blocks


def video_patches(frames: np.ndarray, vision: Any, mean: Sequence[float], std: Sequence[float]) -> tuple[np.ndarray, Grid]:
    """uint8 frames (F, 3, height, width) normalised and cut into patches in the order of the published processors."""
    mean, std = (np.asarray(x, np.float32)[:, None, None] for x in (mean, std))
    x = (frames.astype(np.float32) / 255 - mean) / std
    count, channels, height, width = x.shape
    pair, side, merge = vision.temporal_patch_size, vision.patch_size, vision.spatial_merge_size
    t, h, w = count // pair, height // side, width // side
    x = x.reshape(t, pair, channels, h // merge, merge, side, w // merge, merge, side)
    return x.transpose(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(t * h * w, -1), (t, h, w)


@functools.cache
def oracle(family: str, folder: Path, *, tied: bool = False) -> tuple[Any, hf.Checkpoint]:
    """The model, and the same weights written by `transformers` and read by us."""
    model = build(family, tied=tied)
    model.save_pretrained(folder)
    return model, hf.load(folder)
