"""The vision towers of Qwen2.5-VL (RMSNorm, SwiGLU, windows) and Qwen2-VL (LayerNorm, quick GELU, no windows).

Both embed patches of two frames, run pre-norm attention blocks with 2-D rotary positions, never look across temporal
grids, and merge 2 x 2 patches into one embedding of the decoder's width.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, UInt8

from pallas_kernels.dispatch import Implementation
from pallas_kernels.window_attention import window_attention
from svlm_jax.models import rope
from svlm_jax.models.layers import MLP, LayerNorm, Linear, RMSNorm, SwiGLU, quick_gelu
from svlm_jax.models.qwen2_vl.config import QwenVisionConfig
from svlm_jax.models.qwen2_vl.patches import Grid, layout, patchify
from svlm_jax.models.vlm import Tower, VisionFeatures

EPS = 1e-6
exact_gelu = functools.partial(jax.nn.gelu, approximate=False)
ACTIVATIONS = {"quick_gelu": quick_gelu, "gelu_pytorch_tanh": jax.nn.gelu}  # of blocks that are no SwiGLU


class Attention(nnx.Module):
    def __init__(self, cfg: QwenVisionConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.qkv = Linear(cfg.hidden_size, 3 * cfg.hidden_size, bias=True, dtype=dtype, rngs=rngs)
        self.proj = Linear(cfg.hidden_size, cfg.hidden_size, bias=True, dtype=dtype, rngs=rngs)
        self.num_heads = cfg.num_heads
        self.head_dim = cfg.head_dim

    def __call__(
        self,
        x: Float[Array, "patches E"],
        turn: tuple[jax.Array, jax.Array],
        segments: tuple[int, ...],
        implementation: Implementation,
    ) -> Float[Array, "patches E"]:
        qkv = self.qkv(x).reshape(len(x), 3, self.num_heads, self.head_dim)
        q, k = rope.rotate(qkv[:, 0], *turn), rope.rotate(qkv[:, 1], *turn)
        scale = self.head_dim**-0.5
        y = window_attention(q, k, qkv[:, 2], segments=segments, scale=scale, implementation=implementation)
        return self.proj(y.reshape(len(x), -1))


class Block(nnx.Module):
    """x + attention(norm1(x)), then x + mlp(norm2(x))."""

    def __init__(self, cfg: QwenVisionConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        width, hidden = cfg.hidden_size, cfg.intermediate_size
        norm = RMSNorm if cfg.hidden_act == "silu" else LayerNorm
        self.norm1 = norm(width, eps=EPS, dtype=dtype)
        self.norm2 = norm(width, eps=EPS, dtype=dtype)
        self.attn = Attention(cfg, dtype=dtype, rngs=rngs)
        if cfg.hidden_act == "silu":
            self.mlp: SwiGLU | MLP = SwiGLU(width, hidden, bias=True, dtype=dtype, rngs=rngs)
        else:
            self.mlp = MLP(width, hidden, width, activation=ACTIVATIONS[cfg.hidden_act], dtype=dtype, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "patches E"],
        turn: tuple[jax.Array, jax.Array],
        segments: tuple[int, ...],
        implementation: Implementation,
    ) -> Float[Array, "patches E"]:
        x = x + self.attn(self.norm1(x), turn, segments, implementation)
        return x + self.mlp(self.norm2(x))


class Merger(nnx.Module):
    """The merge x merge patches of a cell, side by side -> one embedding of the decoder's width."""

    def __init__(self, cfg: QwenVisionConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        norm = RMSNorm if cfg.hidden_act == "silu" else LayerNorm
        wide = cfg.hidden_size * cfg.spatial_merge_size**2
        self.norm = norm(cfg.hidden_size, eps=EPS, dtype=dtype)
        self.mlp = MLP(wide, wide, cfg.out_hidden_size, activation=exact_gelu, dtype=dtype, rngs=rngs)
        self.wide = wide

    def __call__(self, x: Float[Array, "patches E"]) -> Float[Array, "M D"]:
        return self.mlp(self.norm(x).reshape(-1, self.wide))


class VisionTower(Tower):
    def __init__(self, cfg: QwenVisionConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.cfg = cfg
        # A 3-D convolution whose stride equals its kernel is a linear layer on flattened patches.
        self.patch_embed = Linear(cfg.patch_values, cfg.hidden_size, bias=False, dtype=dtype, rngs=rngs)
        self.blocks = nnx.List([Block(cfg, dtype=dtype, rngs=rngs) for _ in range(cfg.depth)])
        self.merger = Merger(cfg, dtype=dtype, rngs=rngs)

    def encode(self, frames: UInt8[Array, "B F 3 height width"], implementation: Implementation = "auto") -> VisionFeatures:
        """One clip a stream -> its features (B, M, D), M = t·h·w merged cells in raster order."""
        patches, (t, h, w) = patchify(frames, self.cfg)
        batch = len(frames)
        # Temporal grids never see each other, so streams are nothing but more of them.
        merged = self(patches.reshape(-1, patches.shape[-1]), (batch * t, h, w), implementation)
        return jax.tree.map(lambda x: x.reshape(batch, -1, x.shape[-1]), merged)

    def __call__(
        self, patches: Float[Array, "patches values"], grid: Grid, implementation: Implementation = "auto"
    ) -> VisionFeatures:
        """Patches in merge order -> features (M, D) in raster order of the merged cells."""
        cfg, place = self.cfg, layout(grid, self.cfg)
        x = patches.astype(self.patch_embed.weight[...].dtype)
        if place.cells is not None:
            x = x.reshape(len(place.cells), -1)[place.cells].reshape(x.shape)
        x = self.patch_embed(x)
        cos, sin = rope.cos_sin(rope.vision_angles(place.rows_cols, cfg.head_dim)[:, None])
        for i, block in enumerate(self.blocks):
            segments = place.grids if i in cfg.fullatt_block_indexes else place.windows
            x = block(x, (cos, sin), segments, implementation)
        merged = self.merger(x)
        if place.cells is not None:
            merged = jnp.zeros_like(merged).at[place.cells].set(merged, unique_indices=True)
        return VisionFeatures(merged)
