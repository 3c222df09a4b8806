"""Writing new tokens into the slots of a cache, in place."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int


def write(
    cache: Float[Array, "P K C H"],
    new: Float[Array, "B T K H"],
    slots: Int[Array, "B T"],
    lanes: Int[Array, "B"] | None = None,
) -> Float[Array, "P K C H"]:
    """Puts new tokens into their slots, in place; a slot equal to C means that the token is not kept.

    lanes: which row of the cache each row of tokens belongs to (P = none: nothing is written); None = row i is lane i.
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
