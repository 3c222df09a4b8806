"""Random runs of the authors' eviction code (tests/golden/eviction_traces.json.gz), replayed on the ring without a model.

A trace holds, per round, the ids kept and *which* K/V, by serial number, is cached for each of them. One compiled program
serves all windows: vision, text, sink, tail and the marker are numbers that it reads.
"""

import dataclasses
import functools
import gzip
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from tokenizers import Tokenizer

from svlm_jax.cache import positions, ring, window
from svlm_jax.cache.ring import RingShape, Role, Slots, Tokens, Window
from svlm_jax.checkpoint.random import random_config
from svlm_jax.models.config import ClipGrid
from svlm_jax.prompt import commentary as prompt

GOLDEN = pathlib.Path(__file__).parent.parent / "golden"
REPLY, PATCHES, OPENING = 20, 8, 128  # the longest that occur, or more: shapes are shared by all traces
CAPACITY = RingShape(blocks=6, block=PATCHES, text=1024)


def load() -> list[dict]:
    with gzip.open(GOLDEN / "eviction_traces.json.gz") as file:
        return json.load(file)


@functools.cache
def builder() -> prompt.PromptBuilder:
    tokenizer = Tokenizer.from_file(str(GOLDEN / "streamingvlm/checkpoint/tokenizer.json"))

    def encode(text: str, *, literal: bool = False) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    (video_pad,) = encode("<|video_pad|>")
    return prompt.PromptBuilder(
        dataclasses.replace(random_config("qwen2_5_vl"), video_token_id=video_pad), encode, max_query=16
    )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Stream:
    """A stream without a model: `serial` says whose K/V a slot would hold."""

    slots: Slots
    serial: jax.Array
    chunk_index: jax.Array
    last: jax.Array
    count: jax.Array  # serial number of the next token that is run


def empty() -> Stream:
    i32 = jnp.int32
    return Stream(ring.empty_slots(CAPACITY.slots), jnp.zeros(CAPACITY.slots, i32), i32(0), i32(-1), i32(0))


def _write(stream: Stream, new: Tokens, slot, position) -> Stream:
    slots, _ = ring.append(stream.slots, slot, new, position)
    serial = stream.serial.at[slot].set(stream.count + jnp.cumsum(new.valid) - 1, mode="drop")
    return dataclasses.replace(stream, slots=slots, serial=serial, count=stream.count + new.valid.sum())


def _place(stream: Stream, limits: Window, new: Tokens):
    _, begin = positions.kept_positions(stream.slots, limits, jnp.float32(0))
    return positions.new_positions(new, begin)[0]


def make_programs(ids: window.TurnIds, rules=window):
    """(opening, kept, second): the jitted parts of a second that need no model. `rules` lets a test break one of them."""

    @jax.jit
    def opening(stream: Stream, limits: Window, new: Tokens) -> Stream:
        slot, _, _ = ring.allocate(stream.slots, CAPACITY, new, 1)
        return _write(stream, new, slot, _place(stream, limits, new))

    @jax.jit
    def kept(stream: Stream, limits: Window):
        slots = rules.evict(stream.slots, limits, stream.chunk_index, stream.last, ids)
        order, live = ring.in_order(slots)
        tail = rules.pending(limits, stream.chunk_index, stream.last, ids)
        return slots.token[order], stream.serial[order], live, tail.token[:2], tail.valid[:2]

    @jax.jit
    def second(stream: Stream, limits: Window, turn: Tokens, reply, n):
        slots = rules.evict(stream.slots, limits, stream.chunk_index, stream.last, ids)
        turn = dataclasses.replace(turn, chunk_index=jnp.where(turn.chunk_index < 0, turn.chunk_index, stream.chunk_index))
        new = jax.tree.map(
            lambda *xs: jnp.concatenate(xs, -1), rules.pending(limits, stream.chunk_index, stream.last, ids), turn
        )
        slot, decode_slot, left = ring.allocate(slots, CAPACITY, new, REPLY - 1)
        stream = dataclasses.replace(stream, slots=slots)
        stream = _write(stream, new, slot, _place(stream, limits, new))
        run = jnp.arange(REPLY - 1) < n - 1  # the last sampled token is never run
        words = Tokens(
            reply[:-1], jnp.full(REPLY - 1, Role.ASST_WORDS), jnp.broadcast_to(stream.chunk_index, REPLY - 1),
            jnp.zeros((3, REPLY - 1)), jnp.ones(REPLY - 1), jnp.zeros(REPLY - 1, jnp.int32), run,
        )  # fmt: skip
        stream = _write(stream, words, jnp.where(run, decode_slot, CAPACITY.slots), _place(stream, limits, words))
        stream = dataclasses.replace(stream, last=reply[n - 1], chunk_index=stream.chunk_index + 1)
        return stream, left, positions.kept_positions(stream.slots, limits, jnp.float32(0))[0]

    return opening, kept, second


def walk(ids: list[int], pad: int, patches: int) -> np.ndarray:
    """Positions (3, n) by walking over ids in a plain loop: the independent check. A clip is one row of `patches` cells."""
    out, base, i = [], 0.0, 0
    while i < len(ids):
        if ids[i] == pad:
            out += [(base, base, base + column) for column in range(patches)]
            base, i = base + patches, i + patches
        else:
            out.append((base,) * 3)
            base, i = base + 1, i + 1
    return np.asarray(out, np.float32).T


def replay(run: dict, programs) -> list[str]:
    """Replays one trace. Returns what differed from the recording, one line each; [] = nothing."""
    opening, kept, second = programs
    build = builder()
    cut = run["sink"] is not None
    limits = Window(
        *(np.int32(run[k]) for k in ("V", "T")),
        *(np.int32(run[k]) if cut else np.int32(window.NEVER if k == "sink" else 1) for k in ("sink", "tail")),
        native=np.bool_(False), published_marker_cut=np.int32(run["marker"]),
    )  # fmt: skip
    grid = ClipGrid(1, 1, run["patches"], 2.0)
    length = build.turn_length(ClipGrid(1, 1, PATCHES, 2.0))
    stream = empty()
    stream = opening(stream, limits, prompt.pad(build.opening(run["previous"]), OPENING))
    wrong = []
    for i, want in enumerate(run["trace"]):
        if i:
            ids, serial, live, tail, valid = (np.asarray(x) for x in kept(stream, limits))
            if [*ids[:live].tolist(), *tail[valid].tolist()] != want["kept"]:
                wrong.append(f"round {i}: kept ids")
            if serial[:live].tolist() != want["cached"]:
                wrong.append(f"round {i}: cached K/V")
        turn = prompt.pad(build.turn(i, i + 1, grid, run["query"] if i == 0 else None), length)
        reply = np.zeros(REPLY, np.int32)
        reply[: len(want["reply"])] = want["reply"]
        stream, left, position = second(stream, limits, turn, reply, len(want["reply"]))
        if left < 0:
            wrong.append(f"round {i}: {left} slots left")
        order, live = ring.in_order(stream.slots)
        order = np.asarray(order)[: int(live)]
        expected = walk(np.asarray(stream.slots.token)[order].tolist(), build.video_pad, run["patches"])
        if not np.array_equal(np.asarray(position)[:, order], expected):
            wrong.append(f"round {i}: positions")
    return wrong
