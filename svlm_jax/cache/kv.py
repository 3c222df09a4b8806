"""The keys and values of a decoder, as an explicit value that calls take (donated) and return."""

import dataclasses
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from pallas_kernels.slots import write
from svlm_jax.cache.number_formats import is_eight_bit
from svlm_jax.cache.rounding import dtype_of, rounded

Slots = Float[Array, "B K C H"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class QuantSlots:
    """Keys or values of 8 bits: values (B, K, C, H) times a float32 scale of each slot and head, (B, K, C)."""

    values: jax.Array
    scale: jax.Array

    @classmethod
    def of(cls, wide: jax.Array, like: "QuantSlots") -> "QuantSlots":
        """The nearest to some numbers (..., H), in the format that `like` has."""
        return cls(*rounded(wide, "int8" if like.dtype == jnp.int8 else "fp8", -1))

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def dtype(self) -> jnp.dtype:
        return self.values.dtype

    @property
    def wide(self) -> jax.Array:
        """What the numbers stand for, float32."""
        return self.values.astype(jnp.float32) * self.scale[..., None]


StoredSlots: TypeAlias = Slots | QuantSlots


@dataclasses.dataclass(frozen=True)
class KVShape:
    """What one token takes in a cache: L layers of K heads of H numbers, once for keys and once for values."""

    num_layers: int
    num_kv_heads: int
    head_dim: int

    def bytes(self, slots: int, dtype: DTypeLike, *, copies: int = 2) -> int:
        """Bytes of `slots` slots; copies: keys and values are two arrays, and keys rotated into a workspace a third."""
        scale = 4 if is_eight_bit(dtype) else 0
        return copies * self.num_layers * slots * self.num_kv_heads * (self.head_dim * dtype_of(dtype).itemsize + scale)

    def empty(self, batch: int, slots: int, dtype: DTypeLike) -> tuple[Slots, ...]:
        """Zeros for `batch` streams, one array a layer; each has a buffer of its own, as donation demands."""
        shape = (batch, self.num_kv_heads, slots, self.head_dim)
        return tuple(jnp.zeros(shape, dtype) for _ in range(self.num_layers))

    def stored(self, batch: int, slots: int, name: DTypeLike) -> tuple[StoredSlots, ...]:
        """`empty` in a dtype of JAX, or in int8 or fp8, which have scales."""
        values = self.empty(batch, slots, dtype_of(name))
        if not is_eight_bit(name):
            return values
        return tuple(QuantSlots(x, jnp.zeros(x.shape[:3], jnp.float32)) for x in values)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KVStore:
    """What the layers of a decoder write to and read from: one array (P, K, C, H) a layer of each kind, P lanes.

    `keys` are un-rotated, so that positions can be re-numbered; `rotated`, a workspace, holds the same keys turned to the
    positions now in force. Slot order means nothing: what a query may see is decided by the orders passed beside the cache.

    lanes: which lane of `keys` and `values` each of B rows of new tokens belongs to (P = none: nothing is written); `rotated`
    then has those B rows only. None = row i is lane i, and B = P.
    """

    keys: tuple[StoredSlots, ...]
    values: tuple[StoredSlots, ...]
    rotated: tuple[StoredSlots, ...]
    lanes: Int[Array, "B"] | None = None

    @classmethod
    def empty(cls, shape: KVShape, batch: int, slots: int, dtype: DTypeLike) -> "KVStore":
        """Zeros for `batch` streams of `slots` slots."""
        keys, values, rotated = (shape.stored(batch, slots, dtype) for _ in range(3))
        return cls(keys, values, rotated)

    @property
    def slots(self) -> int:
        return self.keys[0].shape[2]

    def write(
        self,
        layer: int,
        keys: Float[Array, "B T K H"],
        values: Float[Array, "B T K H"],
        rotated: Float[Array, "B T K H"],
        slots: Int[Array, "B T"],
    ) -> "KVStore":
        """The store with new tokens in their slots of a layer; a slot equal to C means that the token is not kept."""

        def put(cache: StoredSlots, new: jax.Array, lanes: jax.Array | None) -> StoredSlots:
            if not isinstance(cache, QuantSlots):
                return write(cache, new, slots, lanes)
            small = QuantSlots.of(new, cache)
            scale = write(cache.scale[..., None], small.scale[..., None], slots, lanes)
            return QuantSlots(write(cache.values, small.values, slots, lanes), scale[..., 0])

        return self.replaced(
            layer,
            put(self.keys[layer], keys, self.lanes),
            put(self.rotated[layer], rotated, None),
            put(self.values[layer], values, self.lanes),
        )

    def replaced(self, layer: int, keys: StoredSlots, rotated: StoredSlots, values: StoredSlots) -> "KVStore":
        """The store with other arrays for a layer."""

        def other(caches: tuple[StoredSlots, ...], new: StoredSlots) -> tuple[StoredSlots, ...]:
            return (*caches[:layer], new, *caches[layer + 1 :])

        return dataclasses.replace(
            self, keys=other(self.keys, keys), rotated=other(self.rotated, rotated), values=other(self.values, values)
        )

    def read(self, layer: int) -> tuple[StoredSlots, StoredSlots]:
        """The rotated keys (B, K, C, H) and the values (P, K, C, H) that a layer attends to."""
        return self.rotated[layer], self.values[layer]
