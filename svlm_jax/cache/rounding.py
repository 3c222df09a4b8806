"""Numbers of 8 bits with a shared float32 scale: what weights and caches are rounded to.

    x ~ values · scale        scale = max |x| along an axis / the largest value of the format

Rounding is symmetric and to the nearest value; a group of zeros has scale 0.
"""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from svlm_jax.cache.number_formats import EightBit

LARGEST = {"int8": 127.0, "fp8": 448.0}
_DTYPES = {"int8": jnp.dtype(jnp.int8), "fp8": jnp.dtype(jnp.float8_e4m3fn)}


def dtype_of(name: DTypeLike) -> jnp.dtype:
    """The dtype of a format: int8, fp8 (float8_e4m3fn), or any that JAX knows."""
    return _DTYPES[name] if isinstance(name, str) and name in _DTYPES else jnp.dtype(name)


def rounded(x: jax.Array, name: EightBit, axis: int) -> tuple[jax.Array, jax.Array]:
    """The nearest numbers of 8 bits, of x's shape, and their float32 scales, without `axis`. Traceable."""
    wide = x.astype(jnp.float32)
    scale = jnp.max(jnp.abs(wide), axis=axis) / LARGEST[name]
    scaled = wide / jnp.expand_dims(jnp.where(scale == 0, 1, scale), axis)
    return (jnp.round(scaled) if name == "int8" else scaled).astype(_DTYPES[name]), scale
