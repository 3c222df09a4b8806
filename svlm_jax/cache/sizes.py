"""How many bytes the cache of a stream takes: the one answer of the doctor's plan and of a session that is about to begin."""

import dataclasses

import jax
from jax.typing import DTypeLike

from svlm_jax.cache import ring
from svlm_jax.cache.kv import KVShape


@dataclasses.dataclass(frozen=True)
class CacheBytes:
    """Bytes by what they hold.

    Attributes:
      stored: un-rotated keys, and values. rotated: keys turned to the positions in force, a workspace of each second.
      metadata: what says what a slot holds.
    """

    stored: int
    rotated: int
    metadata: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.stored + self.rotated + self.metadata


def cache_bytes(shape: KVShape, slots: int, dtype: DTypeLike, *, streams: int = 1) -> CacheBytes:
    """The cache of `streams` streams of `slots` slots each, whose keys and values have this dtype."""
    metadata = jax.tree.leaves(jax.eval_shape(lambda: ring.empty_slots(slots)))
    return CacheBytes(
        stored=streams * shape.bytes(slots, dtype),
        rotated=streams * shape.bytes(slots, dtype, copies=1),
        metadata=streams * sum(leaf.size * leaf.dtype.itemsize for leaf in metadata),
    )
