"""Rotary position embeddings (Su et al. 2021): 1-D frequencies, the 2-D kind of the vision tower, the 3-section MRoPE.

Angles are float32 whatever the model's dtype: in bfloat16 a position of a few hundred is off by whole turns.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

VISION_THETA = 10_000.0


def frequencies(dim: int, theta: float) -> np.ndarray:
    """The dim / 2 angular frequencies theta^(-2i / dim), float32."""
    return (1.0 / theta ** (np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim))).astype(np.float32)


def vision_angles(rows_cols: np.ndarray, head_dim: int) -> np.ndarray:
    """(row, col) of patches, (patches, 2) -> float32 angles (patches, H / 2): half of them follow rows, the others columns."""
    freq = frequencies(head_dim // 2, VISION_THETA)
    return (rows_cols[:, :, None].astype(np.float32) * freq).reshape(len(rows_cols), -1)


def mrope_angles(
    positions: Float[Array, "B 3 T"], *, head_dim: int, theta: float, axes: Sequence[int]
) -> Float[Array, "B T half"]:
    """(t, h, w) positions -> angles: frequency i follows axis axes[i] (Qwen2-VL, section 2.1)."""
    along = positions.astype(jnp.float32)[:, np.asarray(axes)].swapaxes(1, 2)
    return along * frequencies(head_dim, theta)


def cos_sin(angles: jax.Array | np.ndarray) -> tuple[jax.Array, jax.Array]:
    """The pair that `rotate` takes, float32."""
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x: Float[Array, "... H"], cos: Float[Array, "... half"], sin: Float[Array, "... half"]) -> Float[Array, "... H"]:
    """Turns the pairs (x_i, x_{i + H/2}) by their angles, in float32; `cos` and `sin` broadcast against x's leading axes."""
    a, b = jnp.split(x.astype(jnp.float32), 2, -1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(x.dtype)
