"""The decode loop, for captions and answers alike.

    pick a token from the logits -> run it -> logits -> pick ...        until every lane has said a stop id or has had its fill

Its one scalar condition serves all lanes, so XLA never selects between old and new caches; a lane that is done, or idle,
waits for the others and writes nothing. The last picked token is never run.
"""

import dataclasses
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32

from svlm_jax.engine.sampling import SamplingBounds, SamplingLimits, fold_in, pick

Carry = TypeVar("Carry")
# (carry, token (B, 1), number of the token in its reply (B,), lanes that run it (B,)) -> carry, logits (B, V)
RunToken = Callable[[Carry, jax.Array, jax.Array, jax.Array], tuple[Carry, jax.Array]]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Reply:
    """What the lanes have said.

    Attributes:
      token: ids (B, max_new), valid up to count (B,). penalized_ids: those that the repetition penalty counts as said.
      logits: raw logits (B, max_new, V) float32 of every token, or (B, 0, V) when they are not kept.
    """

    token: Int[Array, "B max_new"]
    count: Int[Array, "B"]
    penalized_ids: Bool[Array, "B V"]
    logits: Float[Array, "B steps V"]

    @property
    def last(self) -> Int[Array, "B"]:
        """The newest token of each lane; of one that has said nothing, any id."""
        return jnp.take_along_axis(self.token, jnp.maximum(self.count - 1, 0)[:, None], axis=1)[:, 0]


def begin(
    logits: Float[Array, "B V"],
    *,
    penalized_ids: Bool[Array, "B V"],
    key: UInt32[Array, "B 2"],
    active: Bool[Array, "B"],
    limits: SamplingLimits,
    bounds: SamplingBounds,
    keep_logits: bool = False,
) -> Reply:
    """The first token of each active lane's reply, picked from `logits`; it has not been run. An idle lane has a count of 0.

    Args:
      penalized_ids: what counts as said before. key: PRNG key data; token n is drawn by `fold_in(key, n)`.
      active: the lanes that reply. limits: how tokens are chosen, within `bounds`.
    """
    most, vocab = bounds.max_new_tokens, logits.shape[1]
    nothing = Reply(
        token=jnp.zeros((len(logits), most), jnp.int32),
        count=jnp.zeros(len(logits), jnp.int32),
        penalized_ids=penalized_ids,
        logits=jnp.zeros((len(logits), most if keep_logits else 0, vocab), jnp.float32),
    )
    return _picked(nothing, logits, active, key, limits, bounds)


def _picked(
    reply: Reply, logits: Array, on: Array, key: UInt32[Array, "B 2"], limits: SamplingLimits, bounds: SamplingBounds
) -> Reply:
    """The reply with one more token of the lanes that are `on`."""
    lanes = jnp.arange(len(logits))
    chosen = pick(logits, reply.penalized_ids, fold_in(key, reply.count), limits, bounds)
    at = jnp.where(on, reply.count, bounds.max_new_tokens)
    kept = reply.logits.at[lanes, at].set(logits, mode="drop") if reply.logits.shape[1] else reply.logits
    token = reply.token.at[lanes, at].set(chosen, mode="drop")
    return dataclasses.replace(reply, token=token, count=reply.count + on, logits=kept)


def speaking(reply: Reply, active: Bool[Array, "B"], limits: SamplingLimits, stop: tuple[int, ...]) -> Bool[Array, "B"]:
    """Which lanes have more to say: no stop id yet, and their cap not reached."""
    stopped = jnp.isin(reply.last, jnp.asarray(stop, jnp.int32))
    return active & (reply.count < limits.max_new_tokens) & ~stopped


def extend(
    run_token: RunToken[Carry],
    carry: Carry,
    reply: Reply,
    *,
    key: UInt32[Array, "B 2"],
    active: Bool[Array, "B"],
    limits: SamplingLimits,
    bounds: SamplingBounds,
    stop: tuple[int, ...],
) -> tuple[Carry, Reply]:
    """Goes on with replies until all have said a stop id or reached their cap.

    Args:
      run_token: runs one token a lane. It writes nothing for lanes that it is not told to run.
      carry: what `run_token` changes: the cache and its metadata.
      the others: as in `begin`; smaller caps of `limits` end a slice of the replies, which another call goes on with.
    """

    def one_token(carried: tuple[Carry, Reply]) -> tuple[Carry, Reply]:
        carry, reply = carried
        on, last = speaking(reply, active, limits, stop), reply.last
        carry, logits = run_token(carry, last[:, None], reply.count - 1, on)
        said = reply.penalized_ids | (jnp.arange(logits.shape[1]) == last[:, None])  # a scatter is two kernels more on a GPU
        return carry, _picked(dataclasses.replace(reply, penalized_ids=said), logits, on, key, limits, bounds)

    return jax.lax.while_loop(lambda carried: speaking(carried[1], active, limits, stop).any(), one_token, (carry, reply))
