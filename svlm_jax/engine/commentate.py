"""The compiled second: evict -> renumber -> vision tower -> prefill of the new turn -> decode loop, as one program.

    state, out = step(params, state, turn, frames, config=config)         jitted, pure, `state` donated

    host    turn ids + frames of second i ────────────┐                                     token ids ──> text
    device  state ─> evict ─> positions ─> rotate keys ─> prefill ─> [pick ─> run] x <= 19 ─> state
                     └ metadata only ┘     └ workspace ┘  └ K/V into free slots ┘

The state is a pool of lanes, a stream each, which may stand at different chunks and have different windows and sampling. A
second runs all lanes of the pool, or those that `lanes` names; keys and values stay where they are, and what is idle does not
change. Shapes are static, so one configuration compiles one program for each number of rows, however long the streams run.
The system turn and the previous text go in beforehand, in pieces of a fixed length, through `ingest`.

`encode_clip`, `prefill` and `reply` are the same second as three functions, for those who want to time its parts.
"""

import dataclasses
import functools
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8

from pallas_kernels.dispatch import Implementation
from pallas_kernels.hopper import blocks
from svlm_jax.cache import positions, ring, window
from svlm_jax.cache.kv import KVStore, StoredSlots
from svlm_jax.cache.ring import RingShape, Role, Slots, Tokens
from svlm_jax.cache.sizes import CacheBytes, cache_bytes
from svlm_jax.engine import generate
from svlm_jax.engine.generate import Reply
from svlm_jax.engine.sampling import SamplingBounds, SamplingLimits, fold_in
from svlm_jax.engine.state import StreamState
from svlm_jax.models import functional
from svlm_jax.models.config import ModelConfig
from svlm_jax.models.functional import Params
from svlm_jax.models.vlm import VLM, VisionFeatures

Lanes: TypeAlias = Int[Array, "B"] | None  # which lanes of the pool the rows are; None = all, in order


@dataclasses.dataclass(frozen=True)
class StepConfig:
    """Everything about a second that is fixed at compile time.

    Attributes:
      model, ring: architecture, and the capacity of the cache.
      turns: ids that the rules of the cache need to know.
      sampling: the room that there is for how tokens are chosen.
      cache_dtype: of keys and values.
      recompute: the "sliding window with overlap" baseline: all that is kept is run again each second, from pixels.
      implementation: attention implementation, see `pallas_kernels.dispatch`.
      keep_logits: return the raw logits of every decoded token (for tests; V floats a token).
    """

    model: ModelConfig
    ring: RingShape
    turns: window.TurnIds
    sampling: SamplingBounds
    cache_dtype: str = "float32"
    recompute: bool = False
    implementation: Implementation = "auto"
    keep_logits: bool = False

    @property
    def cache_bytes(self) -> CacheBytes:
        """What the cache of one lane takes while it runs."""
        return cache_bytes(self.model.text.kv_shape, self.ring.slots, self.cache_dtype)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StepOutput:
    """What one second returns to the host.

    Attributes:
      token: sampled ids (B, max_new), valid up to count (B,), which is 0 for an idle lane.
      left: free text slots at the fullest moment (B,); < 0 = the ring was too small and the stream must stop.
      usage: live slots by role (B, len(Role)) at the end of the second.
      logits: raw logits (B, max_new, V) float32, or (B, 0, V) unless `keep_logits`.
    """

    token: Int[Array, "B max_new"]
    count: Int[Array, "B"]
    left: Int[Array, "B"]
    usage: Int[Array, "B roles"]
    logits: Float[Array, "B steps V"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Prepared:
    """A second before its new tokens are run: nothing has been written to the pool.

    Attributes:
      rows: the lanes that run, without what is evicted, their metadata one row each. rotated: their kept keys (B, K, C, H) of
        each layer, turned to the positions now in force.
      new: the tokens to be run (B, T). x: their embeddings (B, T, D); deepstack: see `VisionFeatures`.
      slot: where they go (B, T). position: of each (B, 3, T).
      decode_slot, end, left, active: as in `Prefilled`, where `end` is called `position`.
    """

    rows: StreamState
    rotated: tuple[StoredSlots, ...]
    new: Tokens
    x: Float[Array, "B T D"]
    deepstack: tuple[Array, ...]
    slot: Int[Array, "B T"]
    position: Float[Array, "B 3 T"]
    decode_slot: Int[Array, "B extra"]
    end: Float[Array, "B"]
    left: Int[Array, "B"]
    active: Bool[Array, "B"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Prefilled:
    """A second between prefill and reply. `rows` are the lanes that run, their metadata one row each.

    Attributes:
      rows: as they are now. store: keys and values of the whole pool.
      decode_slot: where decoded tokens go (B, extra). position: of the first decoded token (B,).
      logits: of the first decoded token (B, V). left: see `StepOutput`. active: see `step`.
    """

    rows: StreamState
    store: KVStore
    decode_slot: Int[Array, "B extra"]
    position: Float[Array, "B"]
    logits: Float[Array, "B V"]
    left: Int[Array, "B"]
    active: Bool[Array, "B"]


# ----------------------------------------------------------------------------------------------- running tokens


def _run(
    module: VLM,
    config: StepConfig,
    slots: Slots,
    store: KVStore,
    new: Tokens,
    x: Array,
    slot: Array,
    position: Array,
    deepstack: tuple[Array, ...] = (),
) -> tuple[Slots, KVStore, Array]:
    """Runs new tokens (B, T) through the decoder: metadata and K/V go to `slot`. Returns slots, store and hidden (B, T, D)."""
    slots, order = jax.vmap(ring.append)(slots, slot, new, position)
    hidden, written = module.decode(
        x, position, store, slot, order, slots.order, deepstack=deepstack, implementation=config.implementation
    )
    assert written is not None  # a store goes in, so one comes out
    return slots, written, hidden


def _workspace(module: VLM, pool: StreamState, rows: StreamState, lanes: Lanes) -> tuple[KVStore, Float[Array, "B"]]:
    """The pool's K/V with the rows' kept keys rotated to the positions now in force, and the rows' next free positions."""
    kept, begin = jax.vmap(positions.kept_positions)(rows.slots, rows.window, rows.native_next)
    keys = pool.keys if lanes is None else jax.tree.map(lambda k: k.at[lanes].get(mode="clip"), pool.keys)
    return KVStore(pool.keys, pool.values, module.rotate(keys, kept), lanes), begin


def ingest(
    params: Params, pool: StreamState, new: Tokens, lanes: Lanes = None, *, config: StepConfig
) -> tuple[StreamState, Int[Array, "B"]]:
    """Puts text (B, T) into the cache without an answer: the system turn and the previous text, before the first second.

    Returns the state and the text slots that stay free (B,); < 0 = the ring is too small.
    """
    module, rows = functional.bind(config.model, params), pool.rows(lanes)
    slot, _, left = jax.vmap(lambda s, n: ring.allocate(s, config.ring, n, 1))(rows.slots, new)
    store, begin = _workspace(module, pool, rows, lanes)
    position, end = jax.vmap(positions.new_positions)(new, begin)
    slots, store, _ = _run(module, config, rows.slots, store, new, module.embed(new.token), slot, position)
    return pool.with_rows(dataclasses.replace(rows, slots=slots, native_next=end), store, lanes), left


def replace_system(
    params: Params, pool: StreamState, new: Tokens, lanes: Lanes = None, *, config: StepConfig
) -> tuple[StreamState, Int[Array, "B"]]:
    """Puts another system turn (B, T) in place of that of each row, computed as it would have been in front of everything.

    Later tokens keep the keys and values that they were computed with. Returns the pool and the text slots that stay free.
    """
    module, rows = functional.bind(config.model, params), pool.rows(lanes)

    def placed(slots: Slots, tokens: Tokens) -> tuple[Slots, Array, Array]:
        """The metadata with the new turn in front, the slots of its tokens, and the text slots that stay free."""
        kept = jnp.where((slots.role == Role.SYSTEM) & (slots.order >= 0), -1, slots.order)
        slots = dataclasses.replace(slots, order=window.renumber(slots.role, kept))
        slot, _, left = ring.allocate(slots, config.ring, tokens, 1)
        slots, _ = ring.append(slots, slot, tokens, jnp.zeros((3, tokens.token.shape[0])))
        return dataclasses.replace(slots, order=window.renumber(slots.role, slots.order)), slot, left

    slots, slot, left = jax.vmap(placed)(rows.slots, new)
    rows = dataclasses.replace(rows, slots=slots)
    store, _ = _workspace(module, pool, rows, lanes)
    kept, _ = jax.vmap(positions.kept_positions)(rows.slots, rows.window, rows.native_next)
    at = jnp.minimum(slot, config.ring.slots - 1)
    index = jnp.where(new.valid, jnp.take_along_axis(slots.order, at, axis=1), -1)
    position = jnp.take_along_axis(kept, at[:, None], axis=2)
    _, written = module.decode(
        module.embed(new.token), position, store, slot, index, slots.order, implementation=config.implementation
    )
    assert written is not None  # a store goes in, so one comes out
    return pool.with_rows(rows, written, lanes), left


# ----------------------------------------------------------------------------------------------- the second, in three parts


def encode_clip(
    params: Params,
    pool: StreamState,
    frames: UInt8[Array, "B F 3 height width"],
    active: Bool[Array, "B"],
    lanes: Lanes = None,
    *,
    config: StepConfig,
) -> tuple[VisionFeatures, Array | None]:
    """The vision tower on this second's clips. Returns features (B, M, D) and the rows' clips that recompute keeps.

    Recompute sees every clip of its window again, block by block, and returns (B, blocks·M, D).
    """
    module, rows = functional.bind(config.model, params), pool.rows(lanes)
    if config.ring.blocks == 0:  # a window of 0 s shows the model no video
        return VisionFeatures(jnp.zeros((frames.shape[0], 1, config.model.text.hidden_size), jnp.float32)), rows.frames
    if not config.recompute:
        return module.encode_video(frames, implementation=config.implementation), rows.frames
    at = jnp.where(active, rows.chunk_index % config.ring.blocks, config.ring.blocks)
    clips = jax.vmap(lambda kept, i, clip: kept.at[i].set(clip, mode="drop"))(rows.frames, at, frames)
    streams, blocks = clips.shape[:2]
    encoded = module.encode_video(clips.reshape(streams * blocks, *clips.shape[2:]), implementation=config.implementation)
    return jax.tree.map(lambda x: x.reshape(streams, -1, x.shape[-1]), encoded), clips


def _line_up(state: StreamState, turn: Tokens, active: Bool[Array, ""], config: StepConfig) -> tuple[Slots, Tokens]:
    """Evicts, and lines up what must be run, for one lane: pending ids of the last reply, then the new turn.

    Recompute lines up the kept tokens too, and starts from an empty ring.
    """
    slots = window.evict(state.slots, state.window, state.chunk_index, state.last, config.turns)
    hidden_vision = (state.window.vision == 0) & ((turn.role == Role.PATCH) | (turn.role == Role.MARK))
    turn = dataclasses.replace(
        turn,
        chunk_index=jnp.where(turn.chunk_index < 0, turn.chunk_index, state.chunk_index),
        valid=turn.valid & ~hidden_vision,
    )
    parts = [window.pending(state.window, state.chunk_index, state.last, config.turns), turn]
    if config.recompute:
        slot, live = ring.in_order(slots)
        kept = Tokens(
            token=slots.token[slot],
            role=slots.role[slot],
            chunk_index=slots.chunk_index[slot],
            pos_offset=slots.pos_offset[:, slot],
            pos_step=slots.pos_step[slot],
            patch=slot % max(config.ring.block, 1),
            valid=jnp.arange(slot.shape[0]) < live,
        )
        parts.insert(0, kept)
        slots = ring.clear(slots)
    new = jax.tree.map(lambda *xs: jnp.concatenate(xs, -1), *parts)
    return slots, dataclasses.replace(new, valid=new.valid & active)


def prepare(
    params: Params,
    pool: StreamState,
    turn: Tokens,
    clip: tuple[VisionFeatures, Array | None],
    active: Bool[Array, "B"],
    lanes: Lanes = None,
    *,
    config: StepConfig,
) -> Prepared:
    """Evicts, renumbers, rotates the kept keys, and embeds the new turn (B, T) with its clip."""
    module, before = functional.bind(config.model, params), pool.rows(lanes)
    encoded, frames = clip
    slots, new = jax.vmap(functools.partial(_line_up, config=config))(before, turn, active)
    extra = max(config.sampling.max_new_tokens - 1, 1)
    slot, decode_slot, left = jax.vmap(lambda s, n: ring.allocate(s, config.ring, n, extra))(slots, new)
    rows = dataclasses.replace(before, slots=slots, frames=frames)
    store, begin = _workspace(module, pool, rows, lanes)
    position, end = jax.vmap(positions.new_positions)(new, begin)

    row = new.patch
    if config.recompute:
        row = row + new.chunk_index % max(config.ring.blocks, 1) * (encoded.tokens.shape[1] // max(config.ring.blocks, 1))
    row = jnp.clip(row, 0, encoded.tokens.shape[1] - 1)[..., None]
    patch = jax.tree.map(lambda array: jnp.take_along_axis(array, row, 1), encoded)
    x, is_patch = module.embed(new.token), (new.role == Role.PATCH)[..., None]
    x = jnp.where(is_patch, patch.tokens.astype(x.dtype), x)
    deepstack = tuple(jnp.where(is_patch, added, 0) for added in patch.deepstack)
    left = jnp.where(active, left, 0)
    return Prepared(rows, store.rotated, new, x, deepstack, slot, position, decode_slot, end, left, active)


def read(params: Params, pool: StreamState, prepared: Prepared, lanes: Lanes = None, *, config: StepConfig) -> Prefilled:
    """Runs the new tokens, up to the logits of the reply's first token."""
    module, new, rows = functional.bind(config.model, params), prepared.new, prepared.rows
    store = KVStore(pool.keys, pool.values, prepared.rotated, lanes)
    slots, store, hidden = _run(
        module, config, rows.slots, store, new, prepared.x, prepared.slot, prepared.position, prepared.deepstack
    )
    last = new.valid.shape[1] - 1 - jnp.argmax(new.valid[:, ::-1], axis=1)
    logits = module.logits(jnp.take_along_axis(hidden, last[:, None, None], 1)[:, 0])
    rows = dataclasses.replace(rows, slots=slots)
    return Prefilled(rows, store, prepared.decode_slot, prepared.end, logits, prepared.left, prepared.active)


def prefill(
    params: Params,
    pool: StreamState,
    turn: Tokens,
    clip: tuple[VisionFeatures, Array | None],
    active: Bool[Array, "B"],
    lanes: Lanes = None,
    *,
    config: StepConfig,
) -> Prefilled:
    """Evicts, renumbers, and runs the new turn (B, T) with the clip embeddings, up to the logits of the reply's first token."""
    return read(params, pool, prepare(params, pool, turn, clip, active, lanes, config=config), lanes, config=config)


def retained_ids(slots: Slots, vocab: int) -> Bool[Array, "V"]:
    """Which ids occur in the retained sequence, prompt and pads included: what the repetition penalty counts as said."""
    return jnp.zeros(vocab, bool).at[jnp.where(slots.order >= 0, slots.token, vocab)].set(True, mode="drop")


def _append_words(
    prefilled: Prefilled, token: Int[Array, "B extra"], run: Bool[Array, "B extra"], config: StepConfig
) -> tuple[Slots, Int[Array, "B extra"]]:
    """The slots behind the prefill with the words of a reply that are `run`, and the logical places of those."""
    streams, extra = token.shape
    words = Tokens(
        token=token,
        role=jnp.full_like(token, Role.ASST_WORDS),
        chunk_index=jnp.broadcast_to(prefilled.rows.chunk_index[:, None], token.shape),
        pos_offset=jnp.zeros((streams, 3, extra), jnp.float32),
        pos_step=jnp.ones((streams, extra), jnp.float32),
        patch=jnp.zeros_like(token),
        valid=run,
    )
    position = (prefilled.position[:, None] + jnp.arange(extra))[:, None].repeat(3, axis=1)
    slot = jnp.where(run, prefilled.decode_slot, config.ring.slots)
    return jax.vmap(ring.append)(prefilled.rows.slots, slot, words, position)


def first_token(prefilled: Prefilled, *, config: StepConfig) -> Reply:
    """The replies with their first tokens, which the prefill's logits give."""
    rows = prefilled.rows
    return generate.begin(
        prefilled.logits,
        penalized_ids=jax.vmap(lambda s: retained_ids(s, config.model.text.vocab_size))(rows.slots),
        key=fold_in(rows.key, rows.chunk_index),
        active=prefilled.active,
        limits=rows.sampling,
        bounds=config.sampling,
        keep_logits=config.keep_logits,
    )


def decode(
    params: Params, prefilled: Prefilled, said: Reply, limits: SamplingLimits, *, config: StepConfig
) -> tuple[Prefilled, Reply]:
    """Goes on with the replies of the active rows to their ends, or to the caps of `limits`."""
    module, rows, active = functional.bind(config.model, params), prefilled.rows, prefilled.active
    streams, extra = prefilled.decode_slot.shape
    # The slots' metadata is not part of the loop: its tokens have their places beforehand, and nothing sees a later place.
    tokens = jnp.zeros_like(prefilled.decode_slot)
    planned, order = _append_words(prefilled, tokens, jnp.broadcast_to(active[:, None], tokens.shape), config)

    listed = blocks.live(planned.order)

    def run_token(store: KVStore, token: Array, number: Array, on: Array) -> tuple[KVStore, Array]:
        at = jnp.clip(number, 0, extra - 1)[:, None]
        slot = jnp.where(on[:, None], jnp.take_along_axis(prefilled.decode_slot, at, axis=1), config.ring.slots)
        place = jnp.where(on[:, None], order[:, :1] + number[:, None], -1)
        position = jnp.broadcast_to((prefilled.position + number)[:, None, None], (streams, 3, 1))
        hidden, written = module.decode(
            module.embed(token),
            position,
            store,
            slot,
            place,
            planned.order,
            live=listed,
            implementation=config.implementation,
        )
        assert written is not None  # a store goes in, so one comes out
        return written, module.logits(hidden[:, 0])

    store, said = generate.extend(
        run_token,
        prefilled.store,
        said,
        key=fold_in(rows.key, rows.chunk_index),
        active=active,
        limits=limits,
        bounds=config.sampling,
        stop=config.turns.stop,
    )
    return dataclasses.replace(prefilled, store=store), said


def close(
    pool: StreamState, prefilled: Prefilled, said: Reply, lanes: Lanes = None, *, config: StepConfig
) -> tuple[StreamState, StepOutput]:
    """The pool as it stands when the replies end with what has been said so far. The last token gets its K/V next second."""
    rows = prefilled.rows
    extra = prefilled.decode_slot.shape[1]
    run = jnp.arange(extra) < said.count[:, None] - 1
    slots, _ = _append_words(prefilled, said.token[:, :extra], run, config)
    after = dataclasses.replace(
        rows,
        slots=slots,
        last=said.last,
        chunk_index=rows.chunk_index + 1,
        native_next=prefilled.position + said.count - 1,
    )
    kept = after.where(prefilled.active, pool.rows(lanes))
    live = kept.slots.order >= 0
    usage = (live[:, None] & (kept.slots.role[:, None] == jnp.arange(len(Role))[:, None])).sum(-1, dtype=jnp.int32)
    out = StepOutput(token=said.token, count=said.count, left=prefilled.left, usage=usage, logits=said.logits)
    return pool.with_rows(kept, prefilled.store, lanes), out


def reply(
    params: Params, pool: StreamState, prefilled: Prefilled, lanes: Lanes = None, *, config: StepConfig
) -> tuple[StreamState, StepOutput]:
    """Decodes the replies and closes the second."""
    said = first_token(prefilled, config=config)
    prefilled, said = decode(params, prefilled, said, prefilled.rows.sampling, config=config)
    return close(pool, prefilled, said, lanes, config=config)


def second(
    params: Params,
    pool: StreamState,
    turn: Tokens,
    frames: UInt8[Array, "B F 3 height width"],
    active: Bool[Array, "B"],
    lanes: Lanes = None,
    *,
    config: StepConfig,
) -> tuple[StreamState, StepOutput]:
    """One second of B lanes.

    Args:
      params: nested dict of arrays, as `checkpoint.hf.load` returns it.
      pool: as `lanes.init` and `ingest` left it, or the previous second; donated.
      turn: this second's user turns (B, T), padded to a length that never changes (`prompt.PromptBuilder`).
      frames: this second's clips, uint8 (B, F, 3, height, width).
      active: lanes that have a chunk. The others do not change, and no token is decoded for them.
      lanes: which lanes of the pool the rows are, each at most once; a row of filling is idle and has lane P, the size of the
        pool. None = all of them, in order.

    Returns (pool, StepOutput of the rows).
    """
    clip = encode_clip(params, pool, frames, active, lanes, config=config)
    return reply(params, pool, prefill(params, pool, turn, clip, active, lanes, config=config), lanes, config=config)


step = jax.jit(second, static_argnames="config", donate_argnames="pool")
ingest_step = jax.jit(ingest, static_argnames="config", donate_argnames="pool")
replace_system_step = jax.jit(replace_system, static_argnames="config", donate_argnames="pool")
