"""Between (B, T, N, H) queries and the rows of a key head, (B, K, R, H) with row r = t·G + g: one K/V tile serves all G."""

import jax
import jax.numpy as jnp

from pallas_kernels.hopper.device import FAR


def fold(x: jax.Array, heads: int) -> jax.Array:
    """(B, T, N, H) -> (B, K, T·G, H)."""
    batch, tokens, _, dim = x.shape
    return x.reshape(batch, tokens, heads, -1, dim).swapaxes(1, 2).reshape(batch, heads, -1, dim)


def unfold(rows: jax.Array, tokens: int) -> jax.Array:
    """(B, K, R, H) -> (B, T, N, H); rows beyond T·G are dropped by the caller."""
    batch, heads, _, dim = rows.shape
    return rows.reshape(batch, heads, tokens, -1, dim).swapaxes(1, 2).reshape(batch, tokens, -1, dim)


def fold_scalars(x: jax.Array, heads: int) -> jax.Array:
    """(B, N, T) -> (B, K, T·G)."""
    batch, _, tokens = x.shape
    return x.reshape(batch, heads, -1, tokens).swapaxes(2, 3).reshape(batch, heads, -1)


def unfold_scalars(rows: jax.Array, tokens: int) -> jax.Array:
    """(B, K, T·G) -> (B, N, T)."""
    batch, heads, _ = rows.shape
    return rows.reshape(batch, heads, tokens, -1).swapaxes(2, 3).reshape(batch, -1, tokens)


def pad(x: jax.Array, axis: int, size: int, mode: str = "constant", value: int = 0) -> jax.Array:
    """Lengthens an axis to `size` with `value`, or (mode "edge") by repeating its end."""
    if x.shape[axis] == size:
        return x
    width = [(0, 0)] * x.ndim
    width[axis] = (0, size - x.shape[axis])
    return jnp.pad(x, width, mode="edge") if mode == "edge" else jnp.pad(x, width, constant_values=value)


def up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def merge(out: jax.Array, lse: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Parts (parts, B, K, R, H) and their log-sum-exp (parts, B, K, R) -> attention over all of them, float32."""
    top = lse.max(0)
    weight = jnp.exp(lse - top)
    total = weight.sum(0)
    merged = (out * (weight / total)[..., None]).sum(0)
    return merged, jnp.where(top <= FAR, FAR, top + jnp.log(total))
