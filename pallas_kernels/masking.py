"""Masks and rotated keys, shared by the implementations for XLA and Pallas. The references spell them out again."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

FAR = -1e30  # a masked score, and the log-sum-exp of a row that sees nothing: finite, so that no NaN can come of it

Rope = tuple[Float[Array, "B C half"], Float[Array, "B C half"]]


def check(sink: int | None, window: int | None) -> None:
    """ValueError for a sink without a window, or for sizes that mean nothing."""
    if window is None and sink is not None:
        raise ValueError(f"sink is {sink} but window is None: expected a window, outside which the sink stays visible.")
    if (window is not None and window < 1) or (sink is not None and sink < 0):
        raise ValueError(f"sink is {sink} and window is {window}: expected sink >= 0 and window >= 1.")


def visible(query_index: jax.Array, key_order: jax.Array, sink: int | None, window: int | None) -> jax.Array:
    """True where order q sees order k: 0 <= k <= q and, with a window, k < sink or q - k < window. The orders broadcast."""
    seen = (key_order >= 0) & (key_order <= query_index)
    if window is not None:
        seen &= (key_order < (sink or 0)) | (query_index - key_order < window)
    return seen


def pairs(
    query_index: Int[Array, "B T"], kv_index: Int[Array, "B C"], sink: int | None, window: int | None
) -> Bool[Array, "B T C"]:
    """`visible` for every query and slot."""
    return visible(query_index[:, :, None], kv_index[:, None, :], sink, window)


def turned(keys: Float[Array, "B K C H"], rope: Rope | None) -> Float[Array, "B K C H"]:
    """Keys with the pairs (x_i, x_{i + H/2}) turned by their slot's angles, in float32, rounded to the keys' dtype."""
    if rope is None:
        return keys
    cos, sin = (x.astype(jnp.float32)[:, None] for x in rope)
    a, b = jnp.split(keys.astype(jnp.float32), 2, -1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(keys.dtype)
