"""Vision Sink Bucketing: which vision tokens survive when a memory is over its budget (LiveVLM, arXiv 2505.15269, section 3.2).

    phase 1   the top R tokens by score survive, wherever they are
    phase 2   the others follow in descending score, each only while its bucket has room, until the budget is full

Buckets are equal spans of the stream. Without them almost all survivors would come from where attention is densest; with
them every part of the stream keeps somebody:

    stream    |  bucket 1  |  bucket 2  |  bucket 3  | ...        N buckets of capacity B, N · B = budget

Two things the paper leaves open are decided here. When old buckets hold fewer tokens than they have room for (their
tokens went in earlier rounds), phase 2 ends short of the budget; then the best of the rest fill it, so that always exactly
the budget is kept. And equal scores are ordered by age, older first.

All functions are about one layer of one stream, without batch axes; `jax.vmap` gives them theirs.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

LONGEST = 2**29  # tokens of a stream that `bucket` can place: 63 days at 98 tokens a second


def bucket(place: Int[Array, " vision"], length: Int[Array, ""], buckets: int) -> Int[Array, " vision"]:
    """Which of N buckets holds the token at `place` (counted from 0) of a stream of `length` tokens, counted from 0.

    The paper's ceil(p / (L / N)) for p = place + 1, minus 1: exact for streams of up to LONGEST tokens, where p · N does not
    fit 32 bits. Long division, one binary digit of N at a time.
    """
    length = jnp.maximum(length, 1)
    position = place + 1
    quotient, rest = jnp.zeros_like(position), jnp.zeros_like(position)
    for digit in map(int, bin(buckets)[2:]):
        rest = 2 * rest + digit * position
        quotient = 2 * quotient + rest // length
        rest = rest % length
    return quotient - (rest == 0)


def select(
    score: Float[Array, " vision"],
    place: Int[Array, " vision"],
    candidate: Bool[Array, " vision"],
    length: Int[Array, ""],
    *,
    budget: int,
    top: int,
    capacity: int = 1,
) -> Bool[Array, " vision"]:
    """Which candidates survive: exactly `budget` of them, or all when there are fewer.

    Args:
      score: the more, the better. place: what buckets go by, below `length`.
      budget: tokens that are kept. top: tokens that survive by score alone; the whole budget of them
        makes buckets irrelevant (the "top-k" memory).
      capacity: tokens of a bucket; there are budget // capacity buckets, and at least one.
    """
    buckets = max(budget // capacity, 1)
    index = jnp.arange(score.shape[0], dtype=jnp.int32)
    by_score = lax.sort((jnp.where(candidate, -score, jnp.inf), index), num_keys=2)[1]
    rank = jnp.zeros_like(index).at[by_score].set(index)

    home = jnp.where(candidate, bucket(place, length, buckets), buckets)
    sorted_home, _, who = lax.sort((home, rank, index), num_keys=2)
    begins = jnp.concatenate([jnp.ones(1, bool), sorted_home[1:] != sorted_home[:-1]])
    within = jnp.zeros_like(index).at[who].set(index - lax.cummax(jnp.where(begins, index, 0)))

    # A token finds room iff fewer than B of its bucket have a better score: those of phase 1 are all among them.
    welcome = (candidate & ((rank < top) | (within < capacity)))[by_score]
    queue = jnp.where(welcome, jnp.cumsum(welcome) - 1, welcome.sum() + jnp.cumsum(~welcome) - 1)
    return candidate & (jnp.zeros_like(index).at[by_score].set(queue) < budget)


def recent(count: Int[Array, ""], slots: int, tokens: int) -> Bool[Array, " vision"]:
    """The last `tokens` of the first `count` slots: the short-term memory, which is never compressed."""
    index = jnp.arange(slots)
    return (index < count) & (index >= count - tokens)


def compress(
    score: Float[Array, " vision"],
    place: Int[Array, " vision"],
    count: Int[Array, ""],
    length: Int[Array, ""],
    *,
    budget: int,
    short: int,
    top: int,
    capacity: int = 1,
    by_stream: bool = True,
) -> Bool[Array, " vision"]:
    """Which of the first `count` slots, in order of the stream, are kept: the last `short`, and the best of the others.

    length: tokens that the stream has had. by_stream: buckets are spans of the stream (`place`), which keeps its coverage
    even; otherwise spans of what is cached, whose oldest parts thin out with every clip.
    """
    slots = score.shape[0]
    pinned = recent(count, slots, short)
    index = jnp.arange(slots, dtype=jnp.int32)
    where, span = (place, length - short) if by_stream else (index, count - short)
    candidate = (index < count) & ~pinned
    return pinned | select(score, where, candidate, span, budget=budget - short, top=top, capacity=capacity)


def compact(kept: Bool[Array, " vision"], budget: int) -> Int[Array, " budget"]:
    """The slots that are kept, in order; the places after them hold any slot."""
    return jnp.nonzero(kept, size=budget, fill_value=0)[0].astype(jnp.int32)
