"""Position-agnostic KV Retrieval: a question reads only the pages that matter for it (LiveVLM, arXiv 2505.15269, section 3.3).

    long-term memory   | page 0 | page 1 | page 2 | ...           C keys a page, un-rotated, in order of the stream
    means              k̄0       k̄1       k̄2                       refreshed whenever the memory changes
    score              mean over the question's tokens and heads of q · k̄, neither of them rotated
    read               the best 40 % of the pages, in order of the stream

Eviction leaves gaps, so the rotated keys of one page disagree and their mean says little: positions are left out of the
choice, and given back to the chosen keys afterwards. Each layer chooses for itself.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int


def page_means(
    keys: Float[Array, "B K vision H"], count: Int[Array, "B"], *, page: int, pages: int
) -> Float[Array, "B K pages H"]:
    """Mean key of each page of `page` slots, float32; slots from `count` on do not count, and a page without any is 0."""
    batch, heads, slots, dim = keys.shape
    keys = jnp.pad(keys[:, :, : pages * page], ((0, 0), (0, 0), (0, max(pages * page - slots, 0)), (0, 0)))
    live = (jnp.arange(pages * page) < count[:, None]).reshape(batch, 1, pages, page, 1)
    parts = jnp.where(live, keys.reshape(batch, heads, pages, page, dim).astype(jnp.float32), 0)
    return parts.sum(3) / jnp.maximum(live.sum(3), 1)


def page_scores(
    query: Float[Array, "B T N H"], asked: Bool[Array, "B T"], means: Float[Array, "B K pages H"]
) -> Float[Array, "B pages"]:
    """How much the tokens at `asked` want each page: q · k̄, averaged over them and over the query heads."""
    batch, _, heads, dim = query.shape
    groups = means.shape[1]
    weight = asked.astype(jnp.float32) / jnp.maximum(asked.sum(-1, keepdims=True), 1)
    pooled = jnp.einsum("btnh,bt->bnh", query.astype(jnp.float32), weight, precision="highest")
    pooled = pooled.reshape(batch, groups, heads // groups, dim).mean(2)
    return jnp.einsum("bkh,bkph->bp", pooled, means, precision="highest") / groups


def pages_read(pages: int, share: float) -> int:
    """⌈share · pages⌉, at least one."""
    return max(math.ceil(share * pages - 1e-9), 1)


def choose(score: Float[Array, "B pages"], count: Int[Array, "B"], *, page: int, share: float) -> Int[Array, "B chosen"]:
    """The best pages by score, ascending; places that are not needed hold the number of all pages.

    count: long-term tokens. Of the pages that hold any, ⌈share · pages⌉ are chosen. Equal scores: older pages first.
    """
    pages = score.shape[1]
    held = -(-count // page)
    wanted = jnp.asarray(np.asarray([0] + [pages_read(n, share) for n in range(1, pages + 1)], np.int32))[held]
    best = lax.top_k(jnp.where(jnp.arange(pages) < held[:, None], score, -jnp.inf), pages_read(pages, share))[1]
    return jnp.sort(jnp.where(jnp.arange(best.shape[1]) < wanted[:, None], best, pages), axis=1)


def slots_of(chosen: Int[Array, "B chosen"], *, page: int) -> Int[Array, "B tokens"]:
    """The slots of the chosen pages, one after the other."""
    return (chosen[..., None] * page + jnp.arange(page)).reshape(len(chosen), -1)


def gather(cache: Float[Array, "B K S H"], slots: Int[Array, "B chosen"]) -> Float[Array, "B K chosen H"]:
    """Rows of a cache: only these are read."""
    return jax.vmap(lambda rows, index: jnp.take(rows, index, axis=1, mode="clip"))(cache, slots)
