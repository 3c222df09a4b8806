"""The explicit state of a stream: fixed slots of un-rotated K/V, and metadata that alone says what a slot means.

A slot holds the keys and values of one token. Slot order means nothing; what a token is lives in small integer arrays:

    token        its id                              role      which part of the conversation it belongs to
    chunk_index  the chunk it belongs to, -1 = none  order     place in the logical sequence, 0..n-1; -1 = free slot
    pos_offset   (t, h, w) position inside its       pos_step  how far it moves the position counter
                 vision block, zeros for text

Eviction, and "moving" old words into the previous text, rewrite role and order. Keys and values never move:

    logical   SYSTEM | PREV: open words close | USER 7: open label <v> patches </v> close | ASST 7: open words close | ...
    move      ASST_WORDS of the oldest reply -> PREV_WORDS, then renumber by (part, order)
    evict     order = -1: the slot is free; its K/V stay behind until another token is written over them

Slots come in two pools. Patches of chunk r live in block r mod `blocks` of a ring of clip blocks: writing a new clip over the
oldest one *is* its eviction. Everything else takes slots from a free list, because sink words never leave and words of the
tail outlive what was written after them:

    | block 0 | block 1 | ... | last block | text slot | text slot | ...            C = blocks·M + text slots

Functions here work on the metadata of one stream (no batch axis); `engine/commentate.py` maps them over streams.
"""

import dataclasses
import enum

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class Role(enum.IntEnum):
    """Parts of the conversation, in order of appearance. From USER_OPEN on, roles belong to a chunk."""

    SYSTEM = 0
    PREV_OPEN = 1  # <|im_start|>previous text\n
    PREV_WORDS = 2
    PREV_CLOSE = 3  # <|im_end|>\n
    USER_OPEN = 4
    LABEL = 5  # Time=12.0-13.0s
    MARK = 6  # <|vision_start|>, <|vision_end|>
    PATCH = 7
    QUERY = 8
    USER_CLOSE = 9
    ASST_OPEN = 10
    ASST_WORDS = 11
    ASST_CLOSE = 12  # <|im_end|> and, once written, the newline


@dataclasses.dataclass(frozen=True)
class RingShape:
    """The capacity of a ring: everything about it that decides array shapes.

    Attributes:
      blocks: clip blocks for patches.
      block: M, patches that one block can hold; a clip may have fewer.
      text: slots for everything that is not a patch.
    """

    blocks: int
    block: int
    text: int

    @property
    def slots(self) -> int:
        """C, all slots."""
        return self.blocks * self.block + self.text


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Slots:
    """Metadata of C slots of one stream (with a leading batch axis when several streams are held together)."""

    token: Int[Array, "C"]
    role: Int[Array, "C"]
    chunk_index: Int[Array, "C"]
    order: Int[Array, "C"]  # -1 = free
    pos_offset: Float[Array, "3 C"]
    pos_step: Float[Array, "C"]
    native: Float[Array, "3 C"]  # position when written; read only by native (ever-growing) positions


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Tokens:
    """New tokens on their way into the ring, padded to a static length; `valid` marks the real ones."""

    token: Int[Array, "T"]
    role: Int[Array, "T"]
    chunk_index: Int[Array, "T"]  # -1 for parts that belong to no chunk
    pos_offset: Float[Array, "3 T"]
    pos_step: Float[Array, "T"]
    patch: Int[Array, "T"]  # index of a patch within its clip, in raster order (t, h, w); 0 for text
    valid: Bool[Array, "T"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Window:
    """What is kept, as numbers that a compiled program reads: one program serves every window that fits its ring.

    Built from seconds by `window.WindowConfig`. All fields are scalars per stream.
    """

    vision: Int[Array, ""]  # rounds of vision, the current one included; 0 = no vision at all
    text: Int[Array, ""]  # replies that stay in their place, the current one included
    sink: Int[Array, ""]  # words of the previous text kept at its front
    tail: Int[Array, ""]  # ... and at its end, counting <|im_end|>: tail - 1 words
    native: Bool[Array, ""]  # positions grow for ever instead of being renumbered
    published_marker_cut: Int[
        Array, ""
    ]  # tokens cut from every reply's end, marker or not (as published); 0 = cut the marker if it is there


def empty_slots(count: int) -> Slots:
    """Metadata of `count` free slots. Every field is a buffer of its own, as donation requires."""
    return Slots(
        token=jnp.zeros(count, jnp.int32),
        role=jnp.zeros(count, jnp.int32),
        chunk_index=jnp.full(count, -1, jnp.int32),
        order=jnp.full(count, -1, jnp.int32),
        pos_offset=jnp.zeros((3, count), jnp.float32),
        pos_step=jnp.zeros(count, jnp.float32),
        native=jnp.zeros((3, count), jnp.float32),
    )


def allocate(
    slots: Slots, shape: RingShape, new: Tokens, extra: int
) -> tuple[Int[Array, "T"], Int[Array, " extra"], Int[Array, ""]]:
    """Chooses slots for new tokens, and for `extra` tokens that will be decoded after them.

    Patches go over the oldest block; all else takes free text slots in any order.

    Returns:
      slot (T,): C for padding, which writes drop; decode_slot (extra,); and left (): text slots that stay free.
      left < 0 means that the ring is too small: the caller must check it, because writes to slot C vanish.
    """
    patches = shape.blocks * shape.block
    free = slots.order[patches:] < 0
    is_patch = new.role == Role.PATCH
    text = new.valid & ~is_patch
    pool = jnp.nonzero(free, size=new.token.shape[0] + extra, fill_value=shape.text)[0].astype(jnp.int32) + patches
    slot = jnp.where(text, pool[jnp.cumsum(text) - 1], shape.slots)
    slot = jnp.where(new.valid & is_patch, new.chunk_index % max(shape.blocks, 1) * shape.block + new.patch, slot)
    decode_slot = jax.lax.dynamic_slice(pool, (text.sum(),), (extra,))
    return slot, decode_slot, free.sum() - text.sum() - extra


def append(slots: Slots, slot: Int[Array, "T"], new: Tokens, position: Float[Array, "3 T"]) -> tuple[Slots, Int[Array, "T"]]:
    """Writes the metadata of new tokens into `slot` (C = nowhere), behind everything kept.

    Returns the slots and the logical order (T,) of the new tokens, -1 for padding.
    """
    order = jnp.where(new.valid, (slots.order >= 0).sum() + jnp.cumsum(new.valid) - 1, -1)

    def put(old: Array, value: Array) -> Array:
        return old.at[..., slot].set(value.astype(old.dtype), mode="drop")

    return Slots(
        token=put(slots.token, new.token),
        role=put(slots.role, new.role),
        chunk_index=put(slots.chunk_index, new.chunk_index),
        order=put(slots.order, order),
        pos_offset=put(slots.pos_offset, new.pos_offset),
        pos_step=put(slots.pos_step, new.pos_step),
        native=put(slots.native, position),
    ), order


def in_order(slots: Slots) -> tuple[Int[Array, "C"], Int[Array, ""]]:
    """Slot indices in logical order (free slots at the end), and how many are live."""
    live = slots.order >= 0
    return jnp.argsort(jnp.where(live, slots.order, slots.order.shape[0])), live.sum()


def clear(slots: Slots) -> Slots:
    """The same slots, all free."""
    return dataclasses.replace(slots, order=jnp.full_like(slots.order, -1))
