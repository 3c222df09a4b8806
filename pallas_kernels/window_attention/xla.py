"""`window_attention` for every device that XLA compiles for.

Segments become rows of a dense (segments, S) block, padded where they are ragged. Large segments, such as the 2,880 patches of
a 720p grid, are cut into blocks of queries.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

FAR = -1e30
BLOCK = 256  # queries a block
DENSE_SCORES = 2**25  # scores that may exist at once: 128 MiB of float32


def window_attention(
    query: Float[Array, "patches N H"],
    keys: Float[Array, "patches N H"],
    values: Float[Array, "patches N H"],
    *,
    segments: tuple[int, ...],
    scale: float,
) -> Float[Array, "patches N H"]:
    longest, count = max(segments), len(segments)
    if min(segments) == longest:
        q, k, v = (x.reshape(count, longest, *x.shape[1:]) for x in (query, keys, values))
        return _blocks(q, k, v, None, scale).reshape(query.shape)
    starts = np.cumsum([0, *segments[:-1]])
    inside = np.arange(longest) < np.asarray(segments)[:, None]
    index = np.where(inside, starts[:, None] + np.arange(longest), 0)
    out = _blocks(query[index], keys[index], values[index], jnp.asarray(inside), scale)
    # Where each patch went: its place in the flattened, padded rows.
    return out.reshape(-1, *query.shape[1:])[np.flatnonzero(inside)]


def _blocks(q: jax.Array, k: jax.Array, v: jax.Array, inside: jax.Array | None, scale: float) -> jax.Array:
    rows, length, heads, dim = q.shape
    if length <= BLOCK or rows * heads * length * length <= DENSE_SCORES:
        return _attend(q, k, v, inside, scale)
    blocks = -(-length // BLOCK)
    padded = jnp.pad(q, ((0, 0), (0, blocks * BLOCK - length), (0, 0), (0, 0)))
    cut = padded.reshape(rows, blocks, BLOCK, heads, dim).swapaxes(0, 1)
    out = lax.map(lambda block: _attend(block, k, v, inside, scale), cut)
    return out.swapaxes(0, 1).reshape(rows, blocks * BLOCK, heads, dim)[:, :length]


def _attend(q: jax.Array, k: jax.Array, v: jax.Array, inside: jax.Array | None, scale: float) -> jax.Array:
    """q (segments, Q, N, H), k and v (segments, S, N, H), inside (segments, S) True at real keys."""
    exact = lax.Precision.HIGHEST if q.dtype == jnp.float32 else lax.Precision.DEFAULT
    score = scale * jnp.einsum("wqnh,wsnh->wnqs", q, k, precision=exact, preferred_element_type=jnp.float32)
    if inside is not None:
        score = jnp.where(inside[:, None, None], score, FAR)
    weight = jax.nn.softmax(score, axis=-1).astype(v.dtype)
    out = jnp.einsum("wnqs,wsnh->wqnh", weight, v, precision=exact, preferred_element_type=jnp.float32)
    return out.astype(q.dtype)
