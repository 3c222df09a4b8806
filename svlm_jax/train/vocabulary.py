"""The two matrices as wide as the vocabulary, used where they lie, inside `jax.shard_map` over the mesh of a run.

Gathered whole they would be the largest arrays of a step. What moves instead are the rows of the tokens in use:

    embedding (V / tensor, D / fsdp)    every device looks up its part of the rows of all tokens of its fsdp group; then each
                                        sample's parts come together on the device that the sample lies on
    head (D / fsdp, V / tensor)         is cut anew, by vocabulary only, (D, V / (fsdp * tensor)): 1 / devices of it moves. A
                                        device scores all learned tokens of its group against its own words (Shoeybi et al.
                                        2019, section 3, vocabulary-parallel)
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

SAMPLES, WORDS = "fsdp", ("tensor", "fsdp")  # mesh axes: of a group's samples, and of the vocabulary as it is scored


def lookup(table: Float[Array, "words part"], tokens: Int[Array, "B T"], dtype: DTypeLike) -> Float[Array, "B T D"]:
    """Embeddings of a device's tokens from its part of the table; gradients of a word add up in the table's dtype."""
    ids = lax.all_gather(tokens, SAMPLES, axis=0, tiled=True) - lax.axis_index("tensor") * len(table)
    mine = (ids >= 0) & (ids < len(table))
    rows = jnp.where(mine[..., None], table[jnp.where(mine, ids, 0)], 0).astype(dtype)
    return lax.all_to_all(lax.psum(rows, "tensor"), SAMPLES, split_axis=0, concat_axis=2, tiled=True)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Head:
    """A device's words of the head.

    Attributes:
      weight: (D, words). ids: (words,) of its columns, negative where there is no word: the vocabulary need not divide.
    """

    weight: Float[Array, "D words"]
    ids: Int[Array, " words"]

    @classmethod
    def of(cls, part: Float[Array, "part words"]) -> "Head":
        """From the part of the head (D / fsdp, V / tensor) that lies on a device."""
        words, shares = part.shape[1], lax.axis_size(SAMPLES)
        whole = jnp.pad(part, ((0, 0), (0, -words % shares)))
        weight = lax.all_to_all(whole, SAMPLES, split_axis=1, concat_axis=0, tiled=True)
        place = lax.axis_index(SAMPLES) * weight.shape[1] + jnp.arange(weight.shape[1])
        return cls(weight, jnp.where(place < words, lax.axis_index("tensor") * words + place, -1))
