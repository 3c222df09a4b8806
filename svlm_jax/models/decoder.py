"""The language model of Qwen2-VL and Qwen2.5-VL: pre-norm blocks of grouped-query attention with biases, and SwiGLU."""

import dataclasses
import functools
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from pallas_kernels.cache_attention import cache_attention
from pallas_kernels.dispatch import Implementation
from pallas_kernels.flash_attention import flash_attention
from svlm_jax.cache import kv
from svlm_jax.models import rope
from svlm_jax.models.config import TextConfig
from svlm_jax.models.layers import Embedding, Linear, RMSNorm, SwiGLU, precision

# query (B, T, N, H), keys and values (B, T, K, H) -> (B, T, N, H)
Attend: TypeAlias = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
# the same with the number of the layer before them
AttendLayer: TypeAlias = Callable[[int, jax.Array, jax.Array, jax.Array], jax.Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Visibility:
    """Who sees whom: query t sees slot c when 0 <= kv_index[c] <= query_index[t]. -1 marks padding and empty slots.

    Without a cache the queries see each other and there are no slots; no query_index then means that they stand in order.
    """

    query_index: Int[Array, "B T"] | None
    kv_index: Int[Array, "B S"] | None


class Attention(nnx.Module):
    def __init__(self, cfg: TextConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        width, queries, keys = cfg.hidden_size, cfg.num_heads * cfg.head_dim, cfg.num_kv_heads * cfg.head_dim
        self.q = Linear(width, queries, bias=True, dtype=dtype, rngs=rngs)
        self.k = Linear(width, keys, bias=True, dtype=dtype, rngs=rngs)
        self.v = Linear(width, keys, bias=True, dtype=dtype, rngs=rngs)
        self.o = Linear(queries, width, bias=False, dtype=dtype, rngs=rngs)
        self.head_dim = cfg.head_dim

    def __call__(
        self,
        x: Float[Array, "B T D"],
        turn: tuple[jax.Array, jax.Array],
        layer: tuple[kv.Slots, kv.Slots, kv.Slots] | None,
        slots: Int[Array, "B T"] | None,
        seen: Visibility,
        implementation: Implementation,
    ) -> tuple[Float[Array, "B T D"], tuple[kv.Slots, kv.Slots, kv.Slots] | None]:
        batch, tokens, _ = x.shape
        q, k, v = self._heads(x)
        q = rope.rotate(q, *turn)
        scale = self.head_dim**-0.5
        if layer is None:
            k = rope.rotate(k, *turn)
            y = flash_attention(q, k, v, order=seen.query_index, scale=scale, implementation=implementation)
            return self.o(y.reshape(batch, tokens, -1)), None
        assert slots is not None and seen.query_index is not None and seen.kv_index is not None, "a cache needs its slots"
        keys, values, rotated = layer
        keys = kv.write(keys, k, slots)
        values = kv.write(values, v, slots)
        rotated = kv.write(rotated, rope.rotate(k, *turn), slots)
        y = cache_attention(q, rotated, values, seen.query_index, seen.kv_index, scale=scale, implementation=implementation)
        return self.o(y.reshape(batch, tokens, -1)), (keys, values, rotated)

    def through(self, x: Float[Array, "B T D"], attend: Attend) -> Float[Array, "B T D"]:
        return self.o(attend(*self._heads(x)).reshape(*x.shape[:2], -1))

    def _heads(self, x: Float[Array, "B T D"]) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Query (B, T, N, H), keys and values (B, T, K, H), not rotated."""
        heads = (*x.shape[:2], -1, self.head_dim)
        return self.q(x).reshape(heads), self.k(x).reshape(heads), self.v(x).reshape(heads)


class Layer(nnx.Module):
    def __init__(self, cfg: TextConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.attn_norm = RMSNorm(cfg.hidden_size, eps=cfg.rms_norm_eps, dtype=dtype)
        self.attn = Attention(cfg, dtype=dtype, rngs=rngs)
        self.mlp_norm = RMSNorm(cfg.hidden_size, eps=cfg.rms_norm_eps, dtype=dtype)
        self.mlp = SwiGLU(cfg.hidden_size, cfg.intermediate_size, bias=False, dtype=dtype, rngs=rngs)

    def whole(self, x: Float[Array, "B T D"], turn: tuple[jax.Array, jax.Array], attend: Attend) -> Float[Array, "B T D"]:
        """The layer over whole sequences, for training: `attend` maps query, keys and values to the attention's output."""
        return self.through(x, lambda q, k, v: attend(rope.rotate(q, *turn), rope.rotate(k, *turn), v))

    def through(self, x: Float[Array, "B T D"], attend: Attend) -> Float[Array, "B T D"]:
        """The layer around an attention of the caller's own, which is given heads that are not rotated."""
        x = x + self.attn.through(self.attn_norm(x), attend)
        return x + self.mlp(self.mlp_norm(x))


class Decoder(nnx.Module):
    """Embeddings in, hidden states out; the layers are unrolled, each with arrays of its own."""

    def __init__(self, cfg: TextConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.cfg = cfg
        self.embed = Embedding(cfg.vocab_size, cfg.hidden_size, dtype=dtype, rngs=rngs)
        self.layers = nnx.List([Layer(cfg, dtype=dtype, rngs=rngs) for _ in range(cfg.num_layers)])
        self.norm = RMSNorm(cfg.hidden_size, eps=cfg.rms_norm_eps, dtype=dtype)
        tied = cfg.tie_word_embeddings
        self.head = None if tied else Linear(cfg.hidden_size, cfg.vocab_size, bias=False, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        positions: Float[Array, "B 3 T"],
        cache: kv.KV | None,
        slots: Int[Array, "B T"] | None,
        seen: Visibility,
        implementation: Implementation,
    ) -> tuple[Float[Array, "B T D"], kv.KV | None]:
        turn = self.turn(positions, heads_axis=2)
        written = []
        for i, block in enumerate(self.layers):
            layer = None if cache is None else (cache.keys[i], cache.values[i], cache.rotated[i])
            y, layer = block.attn(block.attn_norm(x), turn, layer, slots, seen, implementation)
            x = x + y
            x = x + block.mlp(block.mlp_norm(x))
            written.append(layer)
        hidden = self.norm(x)
        return hidden, None if cache is None else kv.KV(*zip(*written, strict=True))

    def through(self, x: Float[Array, "B T D"], attend: AttendLayer) -> Float[Array, "B T D"]:
        """New tokens through all layers, each around the caller's own attention over heads that are not rotated.

        For memories whose positions, or slots, differ from layer to layer. Returns hidden states after the last norm.
        """
        for i, block in enumerate(self.layers):
            x = block.through(x, functools.partial(attend, i))
        return self.norm(x)

    def logits(self, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
        """float32 scores of the next token."""
        weight = self.embed.weight[...] if self.head is None else self.head.weight[...]
        over = 1 if self.head is None else 0
        return lax.dot_general(
            hidden,
            weight,
            (((hidden.ndim - 1,), (over,)), ((), ())),
            precision=precision(weight.dtype),
            preferred_element_type=jnp.float32,
        )

    def rotate(self, keys: tuple[kv.Slots, ...], positions: Float[Array, "B 3 C"]) -> tuple[kv.Slots, ...]:
        """Un-rotated keys of every layer, turned to `positions`; computed in float32, returned in the keys' dtype."""
        turn = self.turn(positions, heads_axis=1)
        return tuple(rope.rotate(k, *turn) for k in keys)

    def turn(self, positions: Float[Array, "B 3 T"], *, heads_axis: int) -> tuple[jax.Array, jax.Array]:
        """The cosines and sines that `rope.rotate` takes, for arrays with their heads at `heads_axis`: 1 or 2."""
        cfg = self.cfg
        angles = rope.mrope_angles(positions, head_dim=cfg.head_dim, theta=cfg.rope_theta, section=cfg.mrope_section)
        return rope.cos_sin(jnp.expand_dims(angles, heads_axis))
