"""Attention inside contiguous segments: the contract and the choice of implementation."""

from jaxtyping import Array, Float

from pallas_kernels.dispatch import Implementation, call


def window_attention(
    query: Float[Array, "patches N H"],
    keys: Float[Array, "patches N H"],
    values: Float[Array, "patches N H"],
    *,
    segments: tuple[int, ...],
    scale: float,
    implementation: Implementation = "auto",
) -> Float[Array, "patches N H"]:
    """Bidirectional attention of patches among the patches of their own segment, in the query's dtype.

    `segments` are the static lengths of the segments, one after the other; they sum to P. Scores and softmax are float32.
    """
    if sum(segments) != query.shape[0] or min(segments) < 1:
        raise ValueError(f"segments {segments} must be positive and sum to the {query.shape[0]} patches.")
    return call("window_attention", implementation, (query, keys, values), {"segments": segments, "scale": scale})
