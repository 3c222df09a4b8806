"""The language model of Qwen2-VL and Qwen2.5-VL: pre-norm blocks of grouped-query attention with biases, and SwiGLU.

A layer is spelled once, around an attention of the caller's: over whole sequences, over a cache, over a memory
(`models.attention`, `engine`). The caller is given heads that are not rotated, because positions are its own affair: they may
differ from layer to layer, and keys are cached without them.
"""

import functools
from collections.abc import Callable, Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from svlm_jax.models import rope
from svlm_jax.models.config import TextConfig
from svlm_jax.models.experts import MoE
from svlm_jax.models.layers import Embedding, Linear, RMSNorm, SwiGLU, columns, heads, precision
from svlm_jax.models.quant import QuantArray

# query (B, T, N, H), keys and values (B, T, K, H), none of them rotated -> (B, T, N, H)
LayerAttentionFn: TypeAlias = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
# the same with the number of the layer before them
AttentionFn: TypeAlias = Callable[[int, jax.Array, jax.Array, jax.Array], jax.Array]
# the MLP of a layer and its input (B, T, D) -> its output
MlpFn: TypeAlias = Callable[[SwiGLU | MoE, jax.Array], jax.Array]


class Attention(nnx.Module):
    def __init__(self, cfg: TextConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        width, queries, keys = cfg.hidden_size, cfg.num_heads * cfg.head_dim, cfg.num_kv_heads * cfg.head_dim
        self.qkv = Linear(width, queries + 2 * keys, bias=cfg.attention_bias, dtype=dtype, rngs=rngs)
        self.o = Linear(queries, width, bias=False, dtype=dtype, rngs=rngs)
        self.q_norm = RMSNorm(cfg.head_dim, eps=cfg.rms_norm_eps, dtype=dtype) if cfg.qk_norm else None
        self.k_norm = RMSNorm(cfg.head_dim, eps=cfg.rms_norm_eps, dtype=dtype) if cfg.qk_norm else None
        self.head_dim, self.num_kv_heads = cfg.head_dim, cfg.num_kv_heads

    def forward_with(self, x: Float[Array, "B T D"], attention_fn: LayerAttentionFn) -> Float[Array, "B T D"]:
        return self.o(attention_fn(*self._heads(x)).reshape(*x.shape[:2], -1))

    def _heads(self, x: Float[Array, "B T D"]) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Query (B, T, N, H), keys and values (B, T, K, H), not rotated."""
        y = self.qkv(x)
        shared = y.shape[-1] // self.num_kv_heads - 2 * self.head_dim  # numbers of the queries that share a key head
        q, k, v = columns(y, self.num_kv_heads, (shared, self.head_dim, self.head_dim))
        q = heads(q, self.head_dim)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        return q, k, v


class Layer(nnx.Module):
    def __init__(self, cfg: TextConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.attn_norm = RMSNorm(cfg.hidden_size, eps=cfg.rms_norm_eps, dtype=dtype)
        self.attn = Attention(cfg, dtype=dtype, rngs=rngs)
        self.mlp_norm = RMSNorm(cfg.hidden_size, eps=cfg.rms_norm_eps, dtype=dtype)
        if cfg.experts is None:
            inner, groups = cfg.intermediate_size, cfg.mlp_groups
            self.mlp: SwiGLU | MoE = SwiGLU(cfg.hidden_size, inner, bias=False, groups=groups, dtype=dtype, rngs=rngs)
        else:
            self.mlp = MoE(cfg.hidden_size, cfg.experts, dtype=dtype, rngs=rngs)

    def forward_with(
        self, x: Float[Array, "B T D"], attention_fn: LayerAttentionFn, mlp_fn: MlpFn | None = None
    ) -> Float[Array, "B T D"]:
        """The layer around `attention_fn`, which rotates the heads that it is given, if it wants them rotated.

        mlp_fn: how the MLP is run, by those who spread it over devices.
        """
        x = x + self.attn.forward_with(self.attn_norm(x), attention_fn)
        y = self.mlp_norm(x)
        return x + (self.mlp(y) if mlp_fn is None else mlp_fn(self.mlp, y))


class Decoder(nnx.Module):
    """Embeddings in, hidden states out; the layers are unrolled, each with arrays of its own."""

    def __init__(self, cfg: TextConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.cfg = cfg
        self.embed = Embedding(cfg.vocab_size, cfg.hidden_size, dtype=dtype, rngs=rngs)
        self.layers = nnx.List([Layer(cfg, dtype=dtype, rngs=rngs) for _ in range(cfg.num_layers)])
        self.norm = RMSNorm(cfg.hidden_size, eps=cfg.rms_norm_eps, dtype=dtype)
        tied = cfg.tie_word_embeddings
        self.head = None if tied else Linear(cfg.hidden_size, cfg.vocab_size, bias=False, dtype=dtype, rngs=rngs)

    def forward_with(
        self, x: Float[Array, "B T D"], attention_fn: AttentionFn, deepstack: Sequence[Float[Array, "B T D"]] = ()
    ) -> Float[Array, "B T D"]:
        """New tokens through all layers -> hidden states after the last norm. deepstack[i] is added behind layer i."""
        for i, block in enumerate(self.layers):
            x = block.forward_with(x, functools.partial(attention_fn, i))
            if i < len(deepstack):
                x = x + deepstack[i].astype(x.dtype)
        return self.norm(x)

    def logits(self, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
        """float32 scores of the next token."""
        weight = self.embed.weight[...] if self.head is None else self.head.weight[...]
        over = 1 if self.head is None else 0
        values = weight.values.astype(weight.dtype) if isinstance(weight, QuantArray) else weight
        scores = lax.dot_general(
            hidden,
            values,
            (((hidden.ndim - 1,), (over,)), ((), ())),
            precision=precision(weight.dtype),
            preferred_element_type=jnp.float32,
        )
        return scores * weight.scale if isinstance(weight, QuantArray) else scores

    def rope_tables(self, positions: Float[Array, "B 3 T"], *, heads_axis: int) -> tuple[jax.Array, jax.Array]:
        """The cosines and sines that `rope.rotate` takes, for arrays with their heads at `heads_axis`: 1 or 2."""
        cfg = self.cfg
        angles = rope.mrope_angles(positions, head_dim=cfg.head_dim, theta=cfg.rope_theta, axes=cfg.rope_axes)
        return rope.cos_sin(jnp.expand_dims(angles, heads_axis))
