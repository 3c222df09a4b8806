"""The state of the engine: a pool of lanes, a stream each, as one value."""

import dataclasses
from typing import Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32

from svlm_jax.cache.kv import KVStore, StoredSlots
from svlm_jax.cache.ring import Slots, Window
from svlm_jax.engine.sampling import SamplingLimits


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StreamState:
    """The whole state of P lanes: a value that can be saved, forked and moved between machines.

    Where a function speaks of rows, there are no keys and values, and all else has B rows, one for each lane that runs.

    Attributes:
      keys, values: per layer (P, K, C, H), as they are or of 8 bits; keys are un-rotated.
      slots, window, sampling: metadata and limits, with a leading lane axis.
      chunk_index: the chunk that comes next, counted from 0.
      last: the last sampled token; it has no K/V yet and gets them in the next second.
      native_next: the next native position.
      key: PRNG key data; with `chunk_index` it determines every random choice.
      frames: (P, blocks, F, 3, height, width) uint8, the clips of the vision window; kept by the recompute baseline only.
    """

    keys: tuple[StoredSlots, ...]
    values: tuple[StoredSlots, ...]
    slots: Slots
    window: Window
    sampling: SamplingLimits
    chunk_index: Int[Array, "P"]
    last: Int[Array, "P"]
    native_next: Float[Array, "P"]
    key: UInt32[Array, "P 2"]
    frames: Array | None

    @property
    def lanes(self) -> int:
        """P, the size of the pool."""
        return self.chunk_index.shape[0]

    def metadata(self) -> Self:
        """All but the keys and values."""
        return dataclasses.replace(self, keys=(), values=())

    def rows(self, lanes: Int[Array, "B"] | None) -> Self:
        """The metadata of some lanes; None = all."""
        if lanes is None:
            return self.metadata()
        return jax.tree.map(lambda x: x.at[lanes].get(mode="clip"), self.metadata())

    def with_rows(self, rows: Self, store: KVStore, lanes: Int[Array, "B"] | None) -> Self:
        """The pool with the rows' metadata back in their lanes (P = nowhere), and the keys and values of a store."""
        if lanes is not None:
            rows = jax.tree.map(lambda old, new: old.at[lanes].set(new, mode="drop"), self.metadata(), rows)
        return dataclasses.replace(rows, keys=store.keys, values=store.values)

    def where(self, active: Bool[Array, "B"], other: Self) -> Self:
        """These rows where active, else the other's. Clips are these rows': idle ones never write any."""
        chosen = jax.tree.map(
            lambda x, y: jnp.where(active.reshape(-1, *[1] * (x.ndim - 1)), x, y),
            dataclasses.replace(self, frames=None),
            dataclasses.replace(other, frames=None),
        )
        return dataclasses.replace(chosen, frames=self.frames)
