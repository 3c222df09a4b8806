"""The keys and values of a decoder, as an explicit value that calls take (donated) and return."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from pallas_kernels.slots import write

Slots = Float[Array, "B K C H"]


@dataclasses.dataclass(frozen=True)
class KVShape:
    """What one token takes in a cache: L layers of K heads of H numbers, once for keys and once for values."""

    num_layers: int
    num_kv_heads: int
    head_dim: int

    def bytes(self, slots: int, dtype: DTypeLike, *, copies: int = 2) -> int:
        """Bytes of `slots` slots; copies: keys and values are two arrays, and keys rotated into a workspace a third."""
        return copies * self.num_layers * slots * self.num_kv_heads * self.head_dim * jnp.dtype(dtype).itemsize

    def empty(self, batch: int, slots: int, dtype: DTypeLike) -> tuple[Slots, ...]:
        """Zeros for `batch` streams, one array a layer; each has a buffer of its own, as donation demands."""
        shape = (batch, self.num_kv_heads, slots, self.head_dim)
        return tuple(jnp.zeros(shape, dtype) for _ in range(self.num_layers))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KVStore:
    """What the layers of a decoder write to and read from: one array (P, K, C, H) a layer of each kind, P lanes.

    `keys` are un-rotated, so that positions can be re-numbered; `rotated`, a workspace, holds the same keys turned to the
    positions now in force. Slot order means nothing: what a query may see is decided by the orders passed beside the cache.

    lanes: which lane of `keys` and `values` each of B rows of new tokens belongs to (P = none: nothing is written); `rotated`
    then has those B rows only. None = row i is lane i, and B = P.
    """

    keys: tuple[Slots, ...]
    values: tuple[Slots, ...]
    rotated: tuple[Slots, ...]
    lanes: Int[Array, "B"] | None = None

    @classmethod
    def empty(cls, shape: KVShape, batch: int, slots: int, dtype: DTypeLike) -> "KVStore":
        """Zeros for `batch` streams of `slots` slots."""
        keys, values, rotated = (shape.empty(batch, slots, dtype) for _ in range(3))
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

        return self.replaced(
            layer,
            write(self.keys[layer], keys, slots, self.lanes),
            write(self.rotated[layer], rotated, slots),
            write(self.values[layer], values, slots, self.lanes),
        )

    def replaced(self, layer: int, keys: Slots, rotated: Slots, values: Slots) -> "KVStore":
        """The store with other arrays for a layer."""

        def other(caches: tuple[Slots, ...], new: Slots) -> tuple[Slots, ...]:
            return (*caches[:layer], new, *caches[layer + 1 :])

        return dataclasses.replace(
            self, keys=other(self.keys, keys), rotated=other(self.rotated, rotated), values=other(self.values, values)
        )

    def read(self, layer: int) -> tuple[Slots, Slots]:
        """The rotated keys (B, K, C, H) and the values (P, K, C, H) that a layer attends to."""
        return self.rotated[layer], self.values[layer]
