"""Frames that show nothing new need not be remembered: a filter that LiveVLM's figure 1 names; the rule is StreamMem's.

A frame is dropped when the cosine between its mean embedding and that of the last frame kept exceeds a threshold
(arXiv 2508.15717 uses 0.95). Comparing with the last one kept, not with the one before, notices slow change.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float


def novel(
    frames: Float[Array, "B F D"], valid: Bool[Array, "B F"], newest: Float[Array, "B D"], threshold: float
) -> tuple[Bool[Array, "B F"], Float[Array, "B D"]]:
    """Which frames to keep, and the new reference: mean embeddings in float32, `newest` that of the last one kept (0: none)."""

    def step(reference: Array, frame: tuple[Array, Array]) -> tuple[Array, Array]:
        mean, valid = frame
        cosine = (reference * mean).sum(-1)
        kept = valid & ((cosine <= threshold) | (jnp.abs(reference).sum(-1) == 0))
        return jnp.where(kept[:, None], mean, reference), kept

    unit = frames.astype(jnp.float32)
    unit = unit * lax.rsqrt(jnp.maximum((unit * unit).sum(-1, keepdims=True), 1e-12))
    newest, kept = lax.scan(step, newest, jax.tree.map(lambda x: x.swapaxes(0, 1), (unit, valid)))
    return kept.swapaxes(0, 1), newest
