"""The keys and values of a decoder, as an explicit value that calls take (donated) and return."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from svlm_jax.config import TextConfig

Slots = Float[Array, "B K C H"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KV:
    """One array (B, K, C, H) a layer of each kind.

    `keys` are un-rotated, so that positions can be re-numbered; `rotated` holds the same keys turned to the positions now
    in force. Slot order means nothing: what a query may see is decided by the orders passed beside the cache.
    """

    keys: tuple[Slots, ...]
    values: tuple[Slots, ...]
    rotated: tuple[Slots, ...]

    @classmethod
    def empty(cls, cfg: TextConfig, batch: int, slots: int, dtype: DTypeLike) -> "KV":
        """Zeros for `batch` streams of `slots` slots; every array has a buffer of its own, as donation demands."""

        def layers() -> tuple[jax.Array, ...]:
            shape = (batch, cfg.num_kv_heads, slots, cfg.head_dim)
            return tuple(jnp.zeros(shape, dtype) for _ in range(cfg.num_layers))

        return cls(layers(), layers(), layers())

    @property
    def slots(self) -> int:
        return self.keys[0].shape[2]


def write(cache: Slots, new: Float[Array, "B T K H"], slots: Int[Array, "B T"]) -> Slots:
    """Puts new tokens into their slots; a slot equal to C means that the token is not kept."""
    batch, heads, _, _ = cache.shape
    # One index a row of H numbers. With whole (K, H) windows, XLA for CPUs turns the write of a single token into a
    # dynamic-update-slice, fuses that into each of its readers, and then has to copy the whole cache for them.
    streams, groups = jnp.arange(batch)[:, None, None], jnp.arange(heads)
    return cache.at[streams, groups, slots[:, :, None]].set(new.astype(cache.dtype), mode="drop")
