"""Attention functions for `Decoder.forward_with`: over whole sequences, and over a store that new tokens are written to."""

import dataclasses
from typing import Any

import jax
from jaxtyping import Array, Float, Int

from pallas_kernels.cache_attention import cache_attention
from pallas_kernels.decode_attention import decode_attention
from pallas_kernels.dispatch import Implementation
from pallas_kernels.flash_attention import flash_attention
from pallas_kernels.hopper.blocks import LiveBlocks
from svlm_jax.cache.kv import KVStore, QuantSlots
from svlm_jax.models import rope
from svlm_jax.models.decoder import AttentionFn

RopeTables = tuple[jax.Array, jax.Array]  # cosines and sines, see `Decoder.rope_tables`


def causal_attention(
    rope_tables: RopeTables,
    *,
    scale: float,
    order: Int[Array, "B T"] | None = None,
    implementation: Implementation = "auto",
) -> AttentionFn:
    """Every token sees those of its sequence that are not after it.

    order: their logical places, -1 = padding; None = as they stand.
    """

    def attention_fn(_: int, query: jax.Array, keys: jax.Array, values: jax.Array) -> jax.Array:
        query, keys = rope.rotate(query, *rope_tables), rope.rotate(keys, *rope_tables)
        return flash_attention(query, keys, values, order=order, scale=scale, implementation=implementation)

    return attention_fn


@dataclasses.dataclass
class StoreAttention:
    """New tokens are written to a store and see what it holds. One forward pass, after which `store` holds them.

    Attributes:
      slots: where each token goes; C means that it is not kept.
      query_index: logical place of each token; -1 is padding, whose attention output is 0.
      kv_index: logical place of every slot *after* the write, -1 where empty. A token sees the slots whose place is not
        beyond its own.
      rope_tables: of the new tokens' positions, with their heads at axis 2.
      live: `hopper.blocks.live(kv_index)`, for a loop over single tokens.
    """

    store: KVStore
    slots: Int[Array, "B T"]
    query_index: Int[Array, "B T"]
    kv_index: Int[Array, "B C"]
    rope_tables: RopeTables
    scale: float
    implementation: Implementation = "auto"
    live: LiveBlocks | None = None

    def __call__(
        self, layer: int, query: Float[Array, "B T N H"], keys: Float[Array, "B T K H"], values: Float[Array, "B T K H"]
    ) -> Float[Array, "B T N H"]:
        fused = keys.shape[1] == 1 and self.store.values[layer].dtype == query.dtype
        if fused and self.implementation in ("auto", "mosaic_gpu"):
            return self._decode(layer, query, keys, values)
        rotated = rope.rotate(keys, *self.rope_tables)
        self.store = self.store.write(layer, keys, values, rotated, self.slots)
        read_keys: Any
        read_values: Any
        read_keys, read_values = self.store.read(layer)
        rotated_query, scales = rope.rotate(query, *self.rope_tables), None
        if isinstance(read_keys, QuantSlots):
            scales = read_keys.scale, read_values.scale
            read_keys, read_values = read_keys.values, read_values.values
        else:
            rotated_query = rotated_query.astype(read_keys.dtype)
        attended = cache_attention(
            rotated_query,
            read_keys,
            read_values,
            self.query_index,
            self.kv_index,
            scales=scales,
            value_lanes=self.store.lanes,
            scale=self.scale,
            implementation=self.implementation,
        )
        return attended.astype(query.dtype)

    def _decode(self, layer: int, query: jax.Array, keys: jax.Array, values: jax.Array) -> jax.Array:
        """A single token: rotating, writing and attending are one operation, which on a GPU takes two kernels."""
        store = self.store
        kept: Any = store.keys[layer]
        rotated: Any = store.rotated[layer]
        kept_values: Any = store.values[layer]
        attended, *written = decode_attention(
            query,
            keys,
            values,
            kept,
            rotated,
            kept_values,
            self.slots,
            self.query_index,
            self.kv_index,
            self.rope_tables[0][:, :, 0],
            self.rope_tables[1][:, :, 0],
            store.lanes,
            self.live,
            scale=self.scale,
            implementation=self.implementation,
        )
        self.store = store.replaced(layer, *written)
        return attended
