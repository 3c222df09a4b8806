"""`window_attention` on TPUs: `tpu.forward` with segments, which are known beforehand, so that no step of the grid is idle."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pallas_kernels.tpu.blocks import round_up
from pallas_kernels.tpu.forward import BLOCK_KEYS, BLOCK_ROWS, DTYPES, attend


def unsupported(query: jax.Array, keys: jax.Array, *_: Any, **__: Any) -> str | None:
    """Why the kernel cannot be compiled for these arrays."""
    if query.dtype not in DTYPES or keys.dtype != query.dtype:
        return f"it takes bfloat16 or float32, one dtype for all, not {query.dtype} and {keys.dtype}"
    return None


def window_attention(
    query: Float[Array, "patches N H"],
    keys: Float[Array, "patches N H"],
    values: Float[Array, "patches N H"],
    *,
    segments: tuple[int, ...],
    scale: float,
    interpret: Any = False,
) -> Float[Array, "patches N H"]:
    patches, head = query.shape[0], query.shape[-1]
    # Blocks of a few windows, lest most pairs of a block are of different windows.
    block_rows = min(BLOCK_ROWS, round_up(patches, 16))
    block_keys = min(BLOCK_ROWS if max(segments) <= BLOCK_ROWS else BLOCK_KEYS, round_up(patches, 128))
    segment = np.repeat(np.arange(len(segments), dtype=np.int32), segments)
    ids, order = jnp.asarray(segment)[None], jnp.zeros((1, patches), jnp.int32)
    whole = ((0, 0), (0, 0), (0, -head % 16))  # heads of 72 (Qwen3-VL) become 80: zeros change no score
    q, k, v = (jnp.pad(x, whole).swapaxes(0, 1)[None] for x in (query, keys, values))
    out, _ = attend(
        q, k, v, order, order, (ids, ids), scale=scale, block_rows=block_rows, block_keys=block_keys,
        most=_most(segment, block_rows, block_keys), interpret=interpret,
    )  # fmt: skip
    return out[0].swapaxes(0, 1)[..., :head]


def _most(segment: np.ndarray, block_rows: int, block_keys: int) -> int:
    """The largest number of blocks of keys that the segments of a block of rows touch."""
    first = np.searchsorted(segment, segment[::block_rows], "left") // block_keys
    ends = np.minimum(np.arange(0, len(segment), block_rows) + block_rows, len(segment)) - 1
    last = (np.searchsorted(segment, segment[ends], "right") - 1) // block_keys
    return int((last - first).max()) + 1
