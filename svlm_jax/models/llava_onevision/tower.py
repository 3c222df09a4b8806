"""SigLIP's vision tower (Zhai et al. 2023): square tiles, learned positions, full attention inside a tile."""

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, UInt8

from pallas_kernels.dispatch import Implementation
from pallas_kernels.window_attention import window_attention
from svlm_jax.errors import ConfigError
from svlm_jax.models.layers import MLP, Embedding, LayerNorm, Linear
from svlm_jax.models.llava_onevision.config import Activation, SiglipConfig

ACTIVATIONS: Mapping[Activation, Callable[[jax.Array], jax.Array]] = {
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_pytorch_tanh": functools.partial(jax.nn.gelu, approximate=True),
}


def patchify(tiles: UInt8[Array, "tiles channels height width"], cfg: SiglipConfig) -> Float[Array, "tiles patches values"]:
    """uint8 tiles -> their normalised float32 patches in raster order, P = side²; rows and columns left over are dropped.

    Raises ConfigError when the tiles are not squares of `image_size` pixels.
    """
    count, channels, height, width = tiles.shape
    if (height, width) != (cfg.image_size,) * 2 or channels != cfg.in_channels:
        raise ConfigError(
            f"{count} frames or tiles of {channels} x {height} x {width} are given, but the model sees pictures of "
            f"{cfg.in_channels} x {cfg.image_size} x {cfg.image_size}."
        )
    side, patch = cfg.side, cfg.patch_size
    mean, std = (np.asarray(a, np.float32)[:, None, None] for a in (cfg.image_mean, cfg.image_std))
    x = (tiles[:, :, : side * patch, : side * patch].astype(jnp.float32) / 255.0 - mean) / std
    x = x.reshape(count, channels, side, patch, side, patch).transpose(0, 2, 4, 1, 3, 5)
    return x.reshape(count, side * side, -1)


class Attention(nnx.Module):
    def __init__(self, cfg: SiglipConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        width = cfg.hidden_size
        self.q = Linear(width, width, bias=True, dtype=dtype, rngs=rngs)
        self.k = Linear(width, width, bias=True, dtype=dtype, rngs=rngs)
        self.v = Linear(width, width, bias=True, dtype=dtype, rngs=rngs)
        self.o = Linear(width, width, bias=True, dtype=dtype, rngs=rngs)
        self.head_dim = cfg.head_dim

    def __call__(self, x: Float[Array, "tiles patches E"], implementation: Implementation) -> Float[Array, "tiles patches E"]:
        tiles, patches, width = x.shape
        # Zeros change no score, and kernels take heads in steps of 16 numbers; those of SigLIP-SO400M have 72.
        spare = ((0, 0), (0, 0), (0, -self.head_dim % 16))
        q, k, v = (jnp.pad(part(x).reshape(tiles * patches, -1, self.head_dim), spare) for part in (self.q, self.k, self.v))
        segments = (patches,) * tiles
        y = window_attention(q, k, v, segments=segments, scale=self.head_dim**-0.5, implementation=implementation)
        return self.o(y[..., : self.head_dim].reshape(tiles, patches, width))


class Block(nnx.Module):
    """x + attention(norm1(x)), then x + mlp(norm2(x))."""

    def __init__(self, cfg: SiglipConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        width, act = cfg.hidden_size, ACTIVATIONS[cfg.hidden_act]
        self.norm1 = LayerNorm(width, eps=cfg.layer_norm_eps, dtype=dtype)
        self.norm2 = LayerNorm(width, eps=cfg.layer_norm_eps, dtype=dtype)
        self.attn = Attention(cfg, dtype=dtype, rngs=rngs)
        self.mlp = MLP(width, cfg.intermediate_size, width, activation=act, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "tiles patches E"], implementation: Implementation) -> Float[Array, "tiles patches E"]:
        x = x + self.attn(self.norm1(x), implementation)
        return x + self.mlp(self.norm2(x))


class SiglipTower(nnx.Module):
    """Patches of tiles in, the hidden states named by `feature_layers` out, side by side.

    `post_norm` belongs to the checkpoint, but LLaVA-OneVision takes the states before it.
    """

    def __init__(self, cfg: SiglipConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.cfg = cfg
        # A convolution whose stride equals its kernel is a linear layer on flattened patches.
        self.patch_embed = Linear(cfg.patch_values, cfg.hidden_size, bias=True, dtype=dtype, rngs=rngs)
        self.position = Embedding(cfg.side**2, cfg.hidden_size, dtype=dtype, rngs=rngs)
        self.blocks = nnx.List([Block(cfg, dtype=dtype, rngs=rngs) for _ in range(cfg.depth)])
        self.post_norm = LayerNorm(cfg.hidden_size, eps=cfg.layer_norm_eps, dtype=dtype)

    def __call__(
        self, patches: Float[Array, "tiles patches values"], implementation: Implementation = "auto"
    ) -> Float[Array, "tiles patches features"]:
        x = self.patch_embed(patches.astype(self.patch_embed.weight[...].dtype)) + self.position.weight[...]
        states = [x]
        for block in self.blocks[: max(self.cfg.feature_layers)]:
            x = block(x, implementation)
            states.append(x)
        return jnp.concatenate([states[i] for i in self.cfg.feature_layers], -1)
