"""Vision-language models as one kind of module: a vision half, a decoder, and how the two meet.

A family is a subclass that says how it sees; whatever works on embeddings, positions and caches works with all of them.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, UInt8

from pallas_kernels.dispatch import Implementation
from pallas_kernels.hopper.blocks import LiveBlocks
from svlm_jax.cache.kv import KVStore, QuantSlots, StoredSlots
from svlm_jax.models import rope
from svlm_jax.models.attention import StoreAttention, causal_attention
from svlm_jax.models.config import ModelConfig
from svlm_jax.models.decoder import Decoder


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class VisionFeatures:
    """What a tower makes of pixels.

    Attributes:
      tokens: embeddings that stand in the places of the pads.
      deepstack: arrays of the same shape, the i-th added to the hidden states of those places behind decoder layer i
        (DeepStack, arXiv 2406.04334); () for families without.
    """

    tokens: Float[Array, "*B M D"]
    deepstack: tuple[Float[Array, "*B M D"], ...] = ()


class Tower(nnx.Module):
    """A vision tower that makes embeddings of the decoder's width out of pixels, all by itself."""

    def encode(self, frames: UInt8[Array, "B F 3 height width"], implementation: Implementation = "auto") -> VisionFeatures:
        """One clip a stream -> its features (B, M, D), in the order of its tokens."""
        raise NotImplementedError


class VLM(nnx.Module):
    """Pure: methods read parameters and arguments, and return everything that changes. Made by `functional.bind`."""

    cfg: ModelConfig
    decoder: Decoder

    def __init__(self, cfg: ModelConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        raise NotImplementedError

    @classmethod
    def tower(cls, cfg: ModelConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> Tower:
        """The tower that `visual` is, of families that can be trained."""
        raise NotImplementedError

    def encode_video(
        self, frames: UInt8[Array, "B F 3 height width"], *, implementation: Implementation = "auto"
    ) -> VisionFeatures:
        """One clip a stream -> its features (B, M, D) in the order of its tokens; M as `cfg.vision.clip_tokens` says."""
        raise NotImplementedError

    @property
    def dtype(self) -> jnp.dtype:
        """Of the decoder's weights."""
        return self.decoder.embed.weight[...].dtype

    def embed(self, tokens: Int[Array, "B T"]) -> Float[Array, "B T D"]:
        """Token ids -> embeddings in the parameters' dtype."""
        return self.decoder.embed(tokens)

    def decode(
        self,
        x: Float[Array, "B T D"],
        positions: Float[Array, "B 3 T"],
        cache: KVStore | None = None,
        slots: Int[Array, "B T"] | None = None,
        query_index: Int[Array, "B T"] | None = None,
        kv_index: Int[Array, "B C"] | None = None,
        *,
        live: LiveBlocks | None = None,
        deepstack: Sequence[Float[Array, "B T D"]] = (),
        implementation: Implementation = "auto",
    ) -> tuple[Float[Array, "B T D"], KVStore | None]:
        """New tokens through the decoder -> hidden states after the last norm, and the cache with the tokens written.

        Args:
          x: embeddings; positions: their float32 (t, h, w).
          cache: None for plain causal attention among the new tokens.
          slots: where each token's keys and values go; C means that they are not kept.
          query_index: logical place of each token; -1 is padding, whose attention output is 0.
          kv_index: logical place of every slot *after* the write, -1 where empty. A token sees the slots whose order is
            not beyond its own. Without a cache the tokens see each other by `query_index` (default: 0 to T - 1).
          live: `hopper.blocks.live(kv_index)`, for a loop over single tokens; None = made in each of its steps.
          deepstack: `VisionFeatures.deepstack` in the places of its tokens, zeros elsewhere.
        """
        tables, scale = self.decoder.rope_tables(positions, heads_axis=2), self.cfg.text.head_dim**-0.5
        if cache is None:
            causal = causal_attention(tables, scale=scale, order=query_index, implementation=implementation)
            return self.decoder.forward_with(x, causal, deepstack), None
        if query_index is None or kv_index is None or slots is None:
            raise TypeError("decode needs slots, query_index and kv_index when it is given a cache")
        attention = StoreAttention(cache, slots, query_index, kv_index, tables, scale, implementation, live)
        hidden = self.decoder.forward_with(x, attention, deepstack)
        return hidden, attention.store

    def logits(self, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
        """Scores of the next token, float32."""
        return self.decoder.logits(hidden)

    def rotate(self, keys: tuple[StoredSlots, ...], positions: Float[Array, "B 3 C"]) -> tuple[StoredSlots, ...]:
        """Un-rotated keys of every layer rotated to their positions: `KVStore.rotated` for a newly numbered cache."""
        tables = self.decoder.rope_tables(positions, heads_axis=1)

        def turned(k: StoredSlots) -> StoredSlots:
            return QuantSlots.of(rope.rotate(k.wide, *tables), k) if isinstance(k, QuantSlots) else rope.rotate(k, *tables)

        return tuple(turned(k) for k in keys)

    def __call__(
        self,
        tokens: Int[Array, "B T"],
        positions: Float[Array, "B 3 T"],
        visuals: VisionFeatures | None = None,
        *,
        valid: jax.Array | None = None,
        implementation: Implementation = "auto",
    ) -> Float[Array, "B T V"]:
        """Logits of all tokens of whole sequences at once.

        `visuals` are the features (M, D) of all images and videos, in the order of their pad tokens, batch rows one after the
        other. `valid` (B, T) is False at padding.
        """
        x = self.embed(tokens)
        deepstack: tuple[Array, ...] = ()
        if visuals is not None:
            where = self._is_visual(tokens)
            deepstack = tuple(place(jnp.zeros_like(x), where, added) for added in visuals.deepstack)
            x = place(x, where, visuals.tokens)
        order = None if valid is None else jnp.where(valid, jnp.arange(tokens.shape[1]), -1)
        hidden, _ = self.decode(x, positions, query_index=order, deepstack=deepstack, implementation=implementation)
        return self.logits(hidden)

    def _is_visual(self, tokens: jax.Array) -> jax.Array:
        return (tokens == self.cfg.image_token_id) | (tokens == self.cfg.video_token_id)


def place(x: Float[Array, "B T D"], where: jax.Array, visuals: Float[Array, "M D"]) -> Float[Array, "B T D"]:
    """x with the rows at `where` (B, T), bool, replaced by `visuals`, one after the other."""
    index = jnp.cumsum(where.reshape(-1)).reshape(where.shape) - 1
    return jnp.where(where[..., None], visuals.astype(x.dtype)[jnp.clip(index, 0)], x)
