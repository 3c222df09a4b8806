"""A model and batches so small that a training step compiles in seconds."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from svlm_jax.checkpoint.random import random_config
from svlm_jax.data.chunks import Batch
from svlm_jax.models.config import ModelConfig
from svlm_jax.models.functional import Params, abstract_params

PATCHES = 4  # video pads of one clip: 56 x 56 pixels, two frames


def config(layers: int = 2) -> ModelConfig:
    """About 60,000 parameters; heads and widths divide by 2."""
    cfg = random_config("qwen2_5_vl")
    text = dataclasses.replace(
        cfg.text, hidden_size=32, intermediate_size=64, num_layers=layers, num_heads=2, num_kv_heads=2, head_dim=16
    )
    vision = dataclasses.replace(
        cfg.vision, depth=1, hidden_size=32, intermediate_size=32, num_heads=1, out_hidden_size=32, fullatt_block_indexes=(0,)
    )
    return dataclasses.replace(cfg, text=text, vision=vision)


def params(cfg: ModelConfig, seed: int = 0) -> Params:
    """Random parameters of no particular quality; biases and norms are not trivial, so that they matter."""
    rng = np.random.default_rng(seed)

    def leaf(shape: jax.ShapeDtypeStruct) -> jax.Array:
        scale = 0.1 if len(shape.shape) == 1 else shape.shape[0] ** -0.5
        offset = 1.0 if len(shape.shape) == 1 else 0.0
        return jnp.asarray(offset + scale * rng.standard_normal(shape.shape, np.float32))

    return jax.tree.map(leaf, abstract_params(cfg))


def batch(cfg: ModelConfig, *, rows: int = 8, tokens: int = 24, clips: int = 2, seed: int = 0) -> Batch:
    """Random words and frames; every sample learns another number of tokens, and the last is padded and holds one clip."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 256, (rows, tokens)).astype(np.int32)
    labels = np.full((rows, tokens), -100, np.int32)
    valid = np.ones((rows, tokens), bool)
    clip_valid = np.ones((rows, clips), bool)
    for row in range(rows):
        for clip in range(clips):
            start = 2 + clip * 10
            ids[row, start : start + PATCHES] = cfg.video_token_id
            said = slice(start + PATCHES, start + PATCHES + 1 + (row + seed) % 4)
            labels[row, said] = ids[row, said]
        if clips and row == rows - 1:
            valid[row, tokens // 2 :] = False
            labels[row, tokens // 2 :] = -100
            ids[row, tokens // 2 :] = 0
            clip_valid[row, 1:] = False
    frames = rng.integers(0, 256, (rows, clips, 2, 3, 56, 56)).astype(np.uint8)
    positions = np.broadcast_to(np.arange(tokens, dtype=np.float32), (rows, 3, tokens)).copy()
    return Batch(ids, labels, positions, valid, frames, clip_valid, np.ones(rows, np.float32))


def weighing(batch: Batch, *weight: float) -> Batch:
    """The same samples with other weights: 0 is that of one that cannot be read."""
    return dataclasses.replace(batch, weight=np.asarray(weight, np.float32))
