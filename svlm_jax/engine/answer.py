"""Answering from a memory, as pure functions: nothing of the stream is written, so a question leaves no trace.

    reading = read(params, memory, question, ...)   the question, and the scores of the answer's first token
    answer = first_token(reading, ...)              the answer, in slices of a few tokens
    answer, more = extend(params, reading, answer, ...)

A question attends, layer by layer, to what that layer reads of the memory: its best pages for `vsb+par`, else everything.
The question's own keys and values live in a small cache beside it, and the two attentions are merged by their log-sum-exps:

    layer i    memory ── choose pages by q_i ── gather ── positions ── rotate ──┐
               question's cache ────────────────────────────────────────────────┴─ attention ── layer i + 1
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32

from pallas_kernels.cache_attention import cache_attention
from pallas_kernels.cache_attention.api import merge
from svlm_jax.cache import kv, pages
from svlm_jax.cache import memory_state as mem
from svlm_jax.cache.memory_state import MemoryState
from svlm_jax.engine import generate
from svlm_jax.engine.generate import Reply
from svlm_jax.engine.remember import MemoryLayer, QAConfig, layer_of
from svlm_jax.engine.sampling import SamplingLimits
from svlm_jax.models import functional, rope
from svlm_jax.models.decoder import Decoder
from svlm_jax.models.functional import Params


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Question:
    """The text after the video, padded to a static length.

    Attributes:
      token: ids. valid: the real ones. asked: those that choose pages: the words of the newest question.
    """

    token: Int[Array, "B T"]
    valid: Bool[Array, "B T"]
    asked: Bool[Array, "B T"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RetrievedKV:
    """What one layer reads of the memory: rows of the slots chosen, of which `live` ones count.

    Attributes:
      keys: rotated to their positions. begin: position of the question's first token.
      second: stream time of each row's frame, -1 for the prefix.
    """

    keys: Float[Array, "B K chosen H"]
    values: Float[Array, "B K chosen H"]
    live: Bool[Array, "B chosen"]
    begin: Float[Array, "B"]
    second: Float[Array, "B chosen"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class QuestionState:
    """A question that has been read, before its answer.

    Attributes:
      reads: of each layer. keys, values: per layer (B, K, own, H), of the question and its answer, the keys rotated.
      order: of their slots (B, own), -1 = empty. length: tokens of the question. logits: of the answer's first token.
    """

    reads: tuple[RetrievedKV, ...]
    keys: tuple[Array, ...]
    values: tuple[Array, ...]
    order: Int[Array, "B own"]
    length: Int[Array, "B"]
    logits: Float[Array, "B V"]


def read(params: Params, memory: MemoryState, question: Question, *, config: QAConfig) -> QuestionState:
    """Runs the question; every layer chooses what it reads, by its own queries."""
    module = functional.bind(config.model, params)
    room = question.token.shape[1] + config.sampling.max_new_tokens
    count = room + -room % 8
    keys, values = (config.model.text.kv_shape.empty(len(question.token), count, config.cache_dtype) for _ in range(2))
    order = jnp.where(question.valid, jnp.cumsum(question.valid, axis=1) - 1, -1)
    slots = jnp.where(question.valid, order, count)
    filled = jnp.arange(count) < question.valid.sum(1)[:, None]
    reading = QuestionState(
        reads=(),
        keys=keys,
        values=values,
        order=jnp.where(filled, jnp.arange(count), -1),
        length=question.valid.sum(1),
        logits=jnp.zeros(0),
    )

    def choose(i: int, q: Array) -> RetrievedKV:
        return read_layer(layer_of(memory, i), memory.count, q, question, module.decoder, config)

    x = module.embed(question.token)
    newline = getattr(module, "newline", None)  # LLaVA-OneVision ends a video with an embedding, where the turn has a pad
    if newline is not None:
        x = jnp.where((question.token == config.model.video_token_id)[..., None], newline().astype(x.dtype), x)
    reading, hidden = _forward(module.decoder, reading, x, slots, order, choose, config)
    last = jnp.take_along_axis(hidden, (reading.length - 1)[:, None, None], axis=1)[:, 0]
    return dataclasses.replace(reading, logits=module.logits(last))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AnswerState:
    """An answer under way: the question's own cache, which grows with it, and what has been said.

    Attributes:
      keys, values, order: as in `QuestionState`. said: the tokens so far; the newest has no keys and values yet.
    """

    keys: tuple[Array, ...]
    values: tuple[Array, ...]
    order: Int[Array, "B own"]
    said: Reply


def first_token(reading: QuestionState, key: UInt32[Array, "B 2"], limits: SamplingLimits, *, config: QAConfig) -> AnswerState:
    """The answer's first token. key: PRNG key data; limits: how tokens are chosen."""
    streams, vocab = reading.logits.shape
    said = generate.begin(
        reading.logits,
        penalized_ids=jnp.zeros((streams, vocab), bool),  # the answer's own: what was asked may be said again
        key=key,
        active=jnp.ones(streams, bool),
        limits=limits,
        bounds=config.sampling,
    )
    return AnswerState(reading.keys, reading.values, reading.order, said)


def extend(
    params: Params,
    reading: QuestionState,
    answer: AnswerState,
    key: UInt32[Array, "B 2"],
    limits: SamplingLimits,
    tokens: Int[Array, ""] | int,
    *,
    config: QAConfig,
) -> tuple[AnswerState, Bool[Array, "B"]]:
    """Up to `tokens` more of an answer, and whether it goes on behind them."""
    module = functional.bind(config.model, params)

    # The reads are constants of the loop: only the question's own cache is carried.
    Carry = tuple[tuple[Array, ...], tuple[Array, ...], Array]

    def run_token(carry: Carry, token: Array, number: Array, on: Array) -> tuple[Carry, Array]:
        keys, values, order = carry
        place = (reading.length + number)[:, None]
        slots = jnp.where(on[:, None], place, order.shape[1])
        order = order.at[jnp.arange(len(on))[:, None], slots].set(place, mode="drop")
        now, hidden = _forward(
            module.decoder,
            dataclasses.replace(reading, keys=keys, values=values, order=order),
            module.embed(token),
            slots,
            jnp.where(on[:, None], place, -1),
            lambda i, _: reading.reads[i],
            config,
        )
        return (now.keys, now.values, order), module.logits(hidden[:, 0])

    active = jnp.ones(len(reading.length), bool)
    carry, said = generate.extend(
        run_token,
        (answer.keys, answer.values, answer.order),
        answer.said,
        key=key,
        active=active,
        limits=limits.within(answer.said.count + tokens),
        bounds=config.sampling,
        stop=config.stop,
    )
    return AnswerState(*carry, said), generate.speaking(said, active, limits, config.stop)


def reply(
    params: Params, reading: QuestionState, key: UInt32[Array, "B 2"], limits: SamplingLimits, *, config: QAConfig
) -> tuple[Int[Array, "B max_new"], Int[Array, "B"]]:
    """The whole answer: sampled ids, valid up to a count."""
    answer = first_token(reading, key, limits, config=config)
    answer, _ = extend(params, reading, answer, key, limits, config.sampling.max_new_tokens, config=config)
    return answer.said.token, answer.said.count


# ----------------------------------------------------------------------------------------------- attention


def _forward(
    decoder: Decoder,
    reading: QuestionState,
    x: Float[Array, "B T D"],
    slots: Int[Array, "B T"],
    order: Int[Array, "B T"],
    choose: Callable[[int, Array], RetrievedKV],
    config: QAConfig,
) -> tuple[QuestionState, Float[Array, "B T D"]]:
    """New tokens of a question or answer through the layers. slots, order: where they go, and their place in the question."""
    keys, values = list(reading.keys), list(reading.values)
    reads: list[RetrievedKV] = []
    attention = functools.partial(cache_attention, scale=config.scale, return_lse=True, implementation=config.implementation)

    def attend(i: int, q: Array, k: Array, v: Array) -> Array:
        seen = choose(i, q)
        reads.append(seen)
        place = seen.begin[:, None] + jnp.maximum(order, 0)
        tables = decoder.rope_tables(jnp.repeat(place[:, None], 3, axis=1), heads_axis=2)
        q = rope.rotate(q, *tables).astype(keys[i].dtype)
        keys[i] = kv.write(keys[i], rope.rotate(k, *tables), slots)
        values[i] = kv.write(values[i], v, slots)
        remembered = attention(q, seen.keys, seen.values, order, jnp.where(seen.live, 0, -1))
        own = attention(q, keys[i], values[i], order, reading.order)
        return merge(*remembered, *own)[0].astype(v.dtype)

    hidden = decoder.forward_with(x, attend)
    return dataclasses.replace(reading, reads=tuple(reads), keys=tuple(keys), values=tuple(values)), hidden


def read_layer(
    layer: MemoryLayer,
    count: Int[Array, "B"],
    q: Float[Array, "B T N H"],
    question: Question,
    decoder: Decoder,
    config: QAConfig,
) -> RetrievedKV:
    """What a layer reads for queries that are not rotated: pages and the short-term memory, or all that it holds."""
    shape, memory = config.shape, config.memory
    if memory.page:
        slot, live = _pages(layer, count, q, question, decoder, config)
        meta = mem.take_meta(layer.meta, slot)
        prefix = jnp.broadcast_to(jnp.arange(shape.prefix), (len(slot), shape.prefix))
        rows = jnp.concatenate([prefix, shape.prefix + slot], axis=1)
        keys, values = pages.gather(layer.keys, rows), pages.gather(layer.values, rows)
    else:
        held = shape.held
        live = jnp.arange(held) < count[:, None]
        meta = jax.tree.map(lambda x: x[:, :held], layer.meta)
        keys, values = (x[:, :, : shape.prefix + held] for x in (layer.keys, layer.values))
    position, begin = mem.positions(meta, live, shape, memory.positions)
    text = jnp.ones((len(live), shape.prefix), bool)
    return RetrievedKV(
        keys=rope.rotate(keys, *decoder.rope_tables(mem.with_prefix(position, shape.prefix), heads_axis=1)),
        values=values,
        live=jnp.concatenate([text, live], axis=1),
        begin=begin,
        second=jnp.concatenate([jnp.where(text, -1.0, 0.0), meta.second], axis=1),
    )


def _pages(
    layer: MemoryLayer, count: Array, q: Array, question: Question, decoder: Decoder, config: QAConfig
) -> tuple[Int[Array, "B chosen"], Bool[Array, "B chosen"]]:
    """The vision slots that a layer reads, in order, and which are live: see `MemoryPolicy.select`."""
    shape, memory = config.shape, config.memory
    assert layer.means is not None  # a paged memory has them
    if memory.page_positions:
        live = jnp.arange(shape.vision) < count[:, None]
        begin = mem.positions(layer.meta, live, shape, "original")[1]
        place = begin[:, None] + jnp.arange(q.shape[1])
        q = rope.rotate(q, *decoder.rope_tables(jnp.repeat(place[:, None], 3, axis=1), heads_axis=2))
    slot, live = memory.select(q, question.asked, layer.means, count, shape.short)
    slot = jnp.minimum(slot, shape.vision - 1)
    spare = ((0, 0), (0, -(shape.prefix + slot.shape[1]) % 8))  # GPU kernels read whole tiles of 8 rows
    return jnp.pad(slot, spare), jnp.pad(live, spare)
