"""The compiled second: evict -> renumber -> vision tower -> prefill of the new turn -> decode loop, as one program.

    state, out = step(params, state, turn, frames, config=config)         jitted, pure, `state` donated

    host    turn ids + frames of second i ────────────┐                                     token ids ──> text
    device  state ─> evict ─> positions ─> rotate keys ─> prefill ─> [pick ─> run] x <= 19 ─> state
                     └ metadata only ┘     └ workspace ┘  └ K/V into free slots ┘

Every array has a leading stream axis B; streams may stand at different rounds and have different windows. Shapes are
static, so one configuration compiles one program, however long the stream runs. The system turn and the previous text go
in beforehand, in pieces of a fixed length, through `ingest`.

`see`, `prefill` and `generate` are the same second as three functions, for those who want to time its parts.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, UInt8

from pallas_kernels.dispatch import Implementation
from svlm_jax.cache import positions, ring, window
from svlm_jax.cache.kv import KVStore
from svlm_jax.cache.ring import RingShape, Role, Slots, StreamState, Tokens, Window
from svlm_jax.engine.sampling import Sampling, pick
from svlm_jax.errors import ConfigError
from svlm_jax.models import functional
from svlm_jax.models.config import ModelConfig
from svlm_jax.models.functional import Params
from svlm_jax.models.vlm import VLM


@dataclasses.dataclass(frozen=True)
class StepConfig:
    """Everything about a second that is fixed at compile time.

    Attributes:
      model, ring: architecture, and the capacity of the cache.
      turns: ids that the rules of the cache need to know.
      sampling: how tokens are chosen.
      recompute: the "sliding window with overlap" baseline: all that is kept is run again each second, from pixels.
      implementation: attention implementation, see `pallas_kernels.dispatch`.
      keep_logits: return the raw logits of every decoded token (for tests; V floats a token).
    """

    model: ModelConfig
    ring: RingShape
    turns: window.TurnIds
    sampling: Sampling
    recompute: bool = False
    implementation: Implementation = "auto"
    keep_logits: bool = False


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StepOutput:
    """What one second returns to the host.

    Attributes:
      token: sampled ids (B, max_new), valid up to count (B,).
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
class Progress:
    """A second between prefill and its end: the state of the decode loop."""

    state: StreamState
    rotated: tuple[Array, ...]  # per layer (B, K, C, H): the second's workspace
    slot: Int[Array, "B extra"]  # where decoded tokens go
    position: Float[Array, "B"]  # of the first decoded token
    seen: Bool[Array, "B V"]  # ids of the retained sequence, for the repetition penalty
    out: StepOutput


def init_state(
    config: StepConfig,
    limits: Window,
    *,
    batch: int = 1,
    seed: int = 0,
    dtype: DTypeLike = jnp.float32,
    clip_shape: tuple[int, ...] = (),
) -> StreamState:
    """A fresh state of `batch` streams with the same window. Stream i draws its randomness from seed + i.

    clip_shape: (F, 3, height, width) of a chunk's frames; needed by recompute only, which keeps them.
    """
    kv, shape = config.model.text.kv_shape, config.ring
    if config.recompute and not clip_shape:
        raise ConfigError("memory=recompute keeps frames: expected clip_shape (F, 3, height, width)")
    return StreamState(
        keys=kv.empty(batch, shape.slots, dtype),
        values=kv.empty(batch, shape.slots, dtype),
        slots=jax.tree.map(lambda x: jnp.tile(x[None], (batch,) + (1,) * x.ndim), ring.empty_slots(shape.slots)),
        window=jax.tree.map(lambda x: jnp.full(batch, x), limits),
        chunk_index=jnp.zeros(batch, jnp.int32),
        last=jnp.full(batch, -1, jnp.int32),
        native_next=jnp.zeros(batch, jnp.float32),
        key=jnp.stack([jax.random.key_data(jax.random.key(seed + i, impl="threefry2x32")) for i in range(batch)]),
        frames=jnp.zeros((batch, shape.blocks, *clip_shape), jnp.uint8) if config.recompute else None,
    )


# ----------------------------------------------------------------------------------------------- running tokens


def _run(
    module: VLM, config: StepConfig, slots: Slots, cache: KVStore, new: Tokens, x: Array, slot: Array, position: Array
) -> tuple[Slots, KVStore, Array]:
    """Runs new tokens (B, T) through the decoder: metadata and K/V go to `slot`. Returns slots, cache and hidden (B, T, D)."""
    slots, order = jax.vmap(ring.append)(slots, slot, new, position)
    hidden, written = module.decode(x, position, cache, slot, order, slots.order, implementation=config.implementation)
    assert written is not None  # a cache goes in, so one comes out
    return slots, written, hidden


def _workspace(module: VLM, state: StreamState) -> tuple[KVStore, Float[Array, "B"]]:
    """K/V with the kept keys rotated to the positions now in force, and the next free position."""
    kept, begin = jax.vmap(positions.kept_positions)(state.slots, state.window, state.native_next)
    return KVStore(state.keys, state.values, module.rotate(state.keys, kept)), begin


def ingest(params: Params, state: StreamState, new: Tokens, *, config: StepConfig) -> tuple[StreamState, Int[Array, "B"]]:
    """Puts text (B, T) into the cache without an answer: the system turn and the previous text, before the first second.

    Returns the state and the text slots that stay free (B,); < 0 = the ring is too small.
    """
    module = functional.bind(config.model, params)
    slot, _, left = jax.vmap(lambda s, n: ring.allocate(s, config.ring, n, 1))(state.slots, new)
    cache, begin = _workspace(module, state)
    position, end = jax.vmap(positions.new_positions)(new, begin)
    slots, cache, _ = _run(module, config, state.slots, cache, new, module.embed(new.token), slot, position)
    return dataclasses.replace(state, keys=cache.keys, values=cache.values, slots=slots, native_next=end), left


# ----------------------------------------------------------------------------------------------- the second, in three parts


def see(
    params: Params, state: StreamState, frames: UInt8[Array, "B F 3 h w"], *, config: StepConfig
) -> tuple[Array, Array | None]:
    """The vision tower on this second's clip. Returns embeddings (B, M, D) and the clips that recompute keeps.

    Recompute sees every clip of its window again, block by block, and returns (B, R·M, D).
    """
    module = functional.bind(config.model, params)
    if config.ring.blocks == 0:  # a window of 0 s shows the model no video
        return jnp.zeros((frames.shape[0], 1, config.model.text.hidden_size), jnp.float32), state.frames
    if not config.recompute:
        return module.encode_video(frames, implementation=config.implementation), state.frames
    at = state.chunk_index % config.ring.blocks
    clips = jax.vmap(lambda kept, i, clip: kept.at[i].set(clip))(state.frames, at, frames)
    streams, blocks = clips.shape[:2]
    seen = module.encode_video(clips.reshape(streams * blocks, *clips.shape[2:]), implementation=config.implementation)
    return seen.reshape(streams, -1, seen.shape[-1]), clips


def _line_up(state: StreamState, turn: Tokens, config: StepConfig) -> tuple[Slots, Tokens]:
    """Evicts, and lines up what must be run, for one stream: pending ids of the last reply, then the new turn.

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
    return slots, jax.tree.map(lambda *xs: jnp.concatenate(xs, -1), *parts)


def prefill(
    params: Params, state: StreamState, turn: Tokens, seen_clip: tuple[Array, Array | None], *, config: StepConfig
) -> Progress:
    """Evicts, renumbers, and runs the new turn (B, T) with the clip embeddings; picks the first token of the reply."""
    module = functional.bind(config.model, params)
    sampling, vocab = config.sampling, config.model.text.vocab_size
    clip, frames = seen_clip
    slots, new = jax.vmap(functools.partial(_line_up, config=config))(state, turn)
    extra = max(sampling.max_new_tokens - 1, 1)
    slot, decode_slot, left = jax.vmap(lambda s, n: ring.allocate(s, config.ring, n, extra))(slots, new)
    state = dataclasses.replace(state, slots=slots, frames=frames)
    cache, begin = _workspace(module, state)
    position, end = jax.vmap(positions.new_positions)(new, begin)

    row = new.patch
    if config.recompute:
        row = row + new.chunk_index % max(config.ring.blocks, 1) * (clip.shape[1] // max(config.ring.blocks, 1))
    patch = jnp.take_along_axis(clip, jnp.clip(row, 0, clip.shape[1] - 1)[..., None], 1)
    x = module.embed(new.token)
    x = jnp.where((new.role == Role.PATCH)[..., None], patch.astype(x.dtype), x)

    slots, cache, hidden = _run(module, config, state.slots, cache, new, x, slot, position)
    last = new.valid.shape[1] - 1 - jnp.argmax(new.valid[:, ::-1], axis=1)
    logits = module.logits(jnp.take_along_axis(hidden, last[:, None, None], 1)[:, 0])
    seen = jax.vmap(lambda s: retained_ids(s, vocab))(slots)

    streams, steps = logits.shape[0], sampling.max_new_tokens
    out = StepOutput(
        token=jnp.zeros((streams, steps), jnp.int32).at[:, 0].set(_pick(logits, seen, state, 0, config)),
        count=jnp.ones(streams, jnp.int32),
        left=left,
        usage=jnp.zeros((streams, len(Role)), jnp.int32),
        logits=jnp.zeros((streams, steps, vocab), jnp.float32).at[:, 0].set(logits)
        if config.keep_logits
        else jnp.zeros((streams, 0, vocab), jnp.float32),
    )
    state = dataclasses.replace(state, keys=cache.keys, values=cache.values, slots=slots)
    return Progress(state, cache.rotated, decode_slot, end, seen, out)


def retained_ids(slots: Slots, vocab: int) -> Bool[Array, "V"]:
    """Which ids occur in the retained sequence, prompt and pads included: what the repetition penalty counts as said."""
    return jnp.zeros(vocab, bool).at[jnp.where(slots.order >= 0, slots.token, vocab)].set(True, mode="drop")


def _pick(logits: Array, seen: Array, state: StreamState, count: Array | int, config: StepConfig) -> Int[Array, "B"]:
    """Token number `count` of this second's reply. Randomness depends on seed, round and number alone: streams can resume."""

    def one(logits: Array, seen: Array, key: Array, chunk_index: Array, count: Array) -> Array:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.wrap_key_data(key, impl="threefry2x32"), chunk_index), count)
        return pick(logits, seen, key, config.sampling)

    return jax.vmap(one)(logits, seen, state.key, state.chunk_index, jnp.broadcast_to(count, state.chunk_index.shape))


def _going(p: Progress, config: StepConfig) -> Bool[Array, "B"]:
    """Which streams still speak."""
    last = jnp.take_along_axis(p.out.token, p.out.count[:, None] - 1, 1)[:, 0]
    return (p.out.count < config.sampling.max_new_tokens) & ~jnp.isin(last, jnp.asarray(config.turns.stop))


def _one_token(module: VLM, p: Progress, config: StepConfig) -> Progress:
    """Runs the last picked token of every stream and picks the next; a stream that is done waits for the others."""
    going, n, state = _going(p, config), p.out.count, p.state
    token = jnp.take_along_axis(p.out.token, n[:, None] - 1, 1)
    slot = jnp.where(going[:, None], jnp.take_along_axis(p.slot, n[:, None] - 1, 1), config.ring.slots)
    streams = n.shape[0]
    word = Tokens(
        token=token,
        role=jnp.full((streams, 1), Role.ASST_WORDS, jnp.int32),
        chunk_index=state.chunk_index[:, None],
        pos_offset=jnp.zeros((streams, 3, 1), jnp.float32),
        pos_step=jnp.ones((streams, 1), jnp.float32),
        patch=jnp.zeros((streams, 1), jnp.int32),
        valid=going[:, None],
    )
    position = jnp.broadcast_to((p.position + n - 1)[:, None, None], (streams, 3, 1))
    cache = KVStore(state.keys, state.values, p.rotated)
    slots, cache, hidden = _run(module, config, state.slots, cache, word, module.embed(token), slot, position)
    logits = module.logits(hidden[:, 0])
    stream = jnp.arange(streams)
    seen = p.seen.at[stream, token[:, 0]].set(True)
    to = jnp.where(going, n, config.sampling.max_new_tokens)
    out = dataclasses.replace(
        p.out, token=p.out.token.at[stream, to].set(_pick(logits, seen, state, n, config), mode="drop"), count=n + going
    )
    if config.keep_logits:
        out = dataclasses.replace(out, logits=out.logits.at[stream, to].set(logits, mode="drop"))
    state = dataclasses.replace(state, keys=cache.keys, values=cache.values, slots=slots)
    return dataclasses.replace(p, state=state, rotated=cache.rotated, seen=seen, out=out)


def generate(params: Params, progress: Progress, *, config: StepConfig) -> tuple[StreamState, StepOutput]:
    """The decode loop. Its one scalar condition serves all streams, so XLA never selects between old and new caches.

    The last picked token is never run: it is remembered by id and gets its K/V in the next second.
    """
    module = functional.bind(config.model, params)
    p = jax.lax.while_loop(lambda p: _going(p, config).any(), lambda p: _one_token(module, p, config), progress)
    n, state = p.out.count, p.state
    live = state.slots.order >= 0
    usage = (live[:, None] & (state.slots.role[:, None] == jnp.arange(len(Role))[:, None])).sum(-1, dtype=jnp.int32)
    state = dataclasses.replace(
        state,
        last=jnp.take_along_axis(p.out.token, n[:, None] - 1, 1)[:, 0],
        chunk_index=state.chunk_index + 1,
        native_next=p.position + n - 1,
    )
    return state, dataclasses.replace(p.out, usage=usage)


def second(
    params: Params, state: StreamState, turn: Tokens, frames: UInt8[Array, "B F 3 h w"], *, config: StepConfig
) -> tuple[StreamState, StepOutput]:
    """One second of B streams.

    Args:
      params: nested dict of arrays, as `checkpoint.hf.load` returns it.
      state: as `init_state` and `ingest` left it, or the previous second.
      turn: this second's user turn (B, T), padded to a length that never changes (`prompt.PromptBuilder`).
      frames: this second's clip, uint8 (B, F, 3, height, width).

    Returns (state, StepOutput).
    """
    return generate(
        params, prefill(params, state, turn, see(params, state, frames, config=config), config=config), config=config
    )


step = jax.jit(second, static_argnames="config", donate_argnames="state")
ingest_step = jax.jit(ingest, static_argnames="config", donate_argnames="state")


def fork(state: StreamState) -> StreamState:
    """A copy that lives on its own buffers: `step` donates its state, so a fork must be taken before it."""
    return jax.tree.map(jnp.copy, state)


def stack(states: list[StreamState]) -> StreamState:
    """Several states as one batch of streams."""
    return jax.tree.map(lambda *xs: jnp.concatenate(xs), *states)


def unstack(state: StreamState, index: int) -> StreamState:
    """One stream of a batch, as a batch of one."""
    return jax.tree.map(lambda x: x[index : index + 1], state)


def cache_bytes(config: StepConfig, dtype: DTypeLike) -> int:
    """Bytes of un-rotated keys, values and the rotated workspace of one stream: 1.5 · 2·L·C·K·H·itemsize."""
    return config.model.text.kv_shape.bytes(config.ring.slots, dtype, copies=3)
