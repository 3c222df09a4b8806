"""A second in slices of a few tokens, so that its words leave as they are decoded, and other work fits in between.

    looked = look(params, pool, turn, frames, active, rows, config=config)                      vision; the pool is only read
    pool, speech, out = begin(params, pool, *looked, rows, config=config)                       up to the first token
    pool, speech, out = extend(params, pool, speech, active, 4, rows, config=config)            up to 4 more of each row
    ... until no row is `speaking`

All are jitted and pure; what is returned anew is donated. The tokens are those of `commentate.step`. Old keys are read in one
program and new ones written in the next, so that XLA has no reason to copy a pool on any device. After each slice the pool
stands as if the replies had ended there, so that a row may be left alone at any time; other lanes may change in between.
"""

import dataclasses
import functools
from typing import TypeAlias

import jax
from jaxtyping import Array, Bool, Int, UInt8

from svlm_jax.cache.kv import StoredSlots
from svlm_jax.cache.ring import Tokens
from svlm_jax.engine import commentate, generate
from svlm_jax.engine.commentate import Lanes, Prefilled, Prepared, StepConfig, StepOutput
from svlm_jax.engine.generate import Reply
from svlm_jax.engine.state import StreamState
from svlm_jax.models.functional import Params

Rotated: TypeAlias = tuple[StoredSlots, ...]  # the kept keys of each layer, see `commentate.Prepared`


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Speech:
    """Replies under way.

    Attributes:
      prefilled: of the second, without what the pool keeps: keys, values, and clips. Its workspace grows with the replies.
      said: the tokens so far.
    """

    prefilled: Prefilled
    said: Reply


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SliceOutput:
    """What one slice returns to the host. so_far: the second as if it ended here. speaking: rows with more to say (B,)."""

    so_far: StepOutput
    speaking: Bool[Array, "B"]


@functools.partial(jax.jit, static_argnames="config")
def look(
    params: Params,
    pool: StreamState,
    turn: Tokens,
    frames: UInt8[Array, "B F 3 height width"],
    active: Bool[Array, "B"],
    lanes: Lanes = None,
    *,
    config: StepConfig,
) -> tuple[Prepared, Rotated]:
    """The vision tower, and all else of a second that only reads the pool. Arguments as those of `commentate.second`."""
    clip = commentate.encode_clip(params, pool, frames, active, lanes, config=config)
    prepared = commentate.prepare(params, pool, turn, clip, active, lanes, config=config)
    return dataclasses.replace(prepared, rotated=()), prepared.rotated


@functools.partial(jax.jit, static_argnames="config", donate_argnames=("pool", "rotated"))
def begin(
    params: Params, pool: StreamState, prepared: Prepared, rotated: Rotated, lanes: Lanes = None, *, config: StepConfig
) -> tuple[StreamState, Speech, SliceOutput]:
    """The second up to the first token of each reply. prepared, rotated: of `look`."""
    prepared = dataclasses.replace(prepared, rotated=rotated)
    prefilled = commentate.read(params, pool, prepared, lanes, config=config)
    said = commentate.first_token(prefilled, config=config)
    return _closed(pool, dataclasses.replace(prefilled, logits=prefilled.logits[:, :0]), said, lanes, config)


@functools.partial(jax.jit, static_argnames="config", donate_argnames=("pool", "speech"))
def extend(
    params: Params,
    pool: StreamState,
    speech: Speech,
    active: Bool[Array, "B"],
    tokens: Int[Array, ""] | int,
    lanes: Lanes = None,
    *,
    config: StepConfig,
) -> tuple[StreamState, Speech, SliceOutput]:
    """Up to `tokens` more of each reply. active: the rows that go on; one that has been left out once stays out."""
    store = dataclasses.replace(speech.prefilled.store, keys=pool.keys, values=pool.values)
    rows = dataclasses.replace(speech.prefilled.rows, frames=pool.rows(lanes).frames)
    prefilled = dataclasses.replace(speech.prefilled, rows=rows, store=store, active=active)
    limits = prefilled.rows.sampling.within(speech.said.count + tokens)
    prefilled, said = commentate.decode(params, prefilled, speech.said, limits, config=config)
    return _closed(pool, prefilled, said, lanes, config)


def _closed(
    pool: StreamState, prefilled: Prefilled, said: Reply, lanes: Lanes, config: StepConfig
) -> tuple[StreamState, Speech, SliceOutput]:
    pool, out = commentate.close(pool, prefilled, said, lanes, config=config)
    more = generate.speaking(said, prefilled.active, prefilled.rows.sampling, config.turns.stop)
    rest = dataclasses.replace(
        prefilled,
        rows=dataclasses.replace(prefilled.rows, frames=None),
        store=dataclasses.replace(prefilled.store, keys=(), values=()),
    )
    return pool, Speech(rest, said), SliceOutput(out, more)
