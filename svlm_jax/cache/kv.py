"""The keys and values of a decoder, as an explicit value that calls take (donated) and return."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

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

        def replaced(caches: tuple[Slots, ...], new: Array, lanes: Array | None) -> tuple[Slots, ...]:
            return (*caches[:layer], write(caches[layer], new, slots, lanes), *caches[layer + 1 :])

        return dataclasses.replace(
            self,
            keys=replaced(self.keys, keys, self.lanes),
            values=replaced(self.values, values, self.lanes),
            rotated=replaced(self.rotated, rotated, None),
        )

    def read(self, layer: int) -> tuple[Slots, Slots]:
        """The rotated keys (B, K, C, H) and the values (P, K, C, H) that a layer attends to."""
        return self.rotated[layer], self.values[layer]


def write(
    cache: Float[Array, "P K C H"],
    new: Float[Array, "B T K H"],
    slots: Int[Array, "B T"],
    lanes: Int[Array, "B"] | None = None,
) -> Float[Array, "P K C H"]:
    """Puts new tokens into their slots, in place; a slot equal to C means that the token is not kept.

    lanes: of each row, see `KVStore`; a row of lane P is not kept.
    """
    lanes, groups = jnp.arange(len(new)) if lanes is None else lanes, jnp.arange(cache.shape[1])
    # One index a row of H numbers. With whole (K, H) windows, XLA for CPUs turns the write of a single token into a
    # dynamic-update-slice, fuses that into each of its readers, and then has to copy the whole cache for them.
    index = lanes[:, None, None], groups, slots[:, :, None]
    put = functools.partial(_put, index=index)
    if cache.dtype.itemsize != 2:
        return put(cache, new.astype(cache.dtype))
    return lax.platform_dependent(cache, new.astype(cache.dtype), cpu=functools.partial(_put_bits, index=index), default=put)


def _put(cache: jax.Array, new: jax.Array, *, index: tuple[jax.Array, ...]) -> jax.Array:
    return cache.at[index].set(new, mode="drop")


def _put_bits(cache: jax.Array, new: jax.Array, *, index: tuple[jax.Array, ...]) -> jax.Array:
    """`_put` of 16-bit numbers as integers: XLA for CPUs scatters bfloat16 by way of a float32 copy of the whole cache."""
    bits = functools.partial(lax.bitcast_convert_type, new_dtype=jnp.uint16)
    return lax.bitcast_convert_type(_put(bits(cache), bits(new), index=index), cache.dtype)
