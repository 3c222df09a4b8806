"""Single rules of the ring by hand, where the recorded runs of `test_traces` cannot tell right from wrong."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from svlm_jax.cache import positions, ring, window
from svlm_jax.cache.ring import RingShape, Role, Tokens
from svlm_jax.cache.window import TurnIds, WindowConfig

SHAPE = RingShape(blocks=2, block=2, text=12)
IDS = TurnIds(im_end=99, newline=98, marker=(7, 8), stop=(99, 97))
LIMITS = WindowConfig(vision=2, text=1, sink=2, tail=3).limits(1.0, None)


def tokens(role, ids, chunk=-1, valid=None, step=None) -> Tokens:
    count = len(ids)
    return Tokens(
        token=jnp.asarray(ids, jnp.int32),
        role=jnp.full(count, role, jnp.int32),
        chunk_index=jnp.full(count, chunk, jnp.int32),
        pos_offset=jnp.zeros((3, count)),
        pos_step=jnp.ones(count) if step is None else jnp.asarray(step, jnp.float32),
        patch=jnp.zeros(count, jnp.int32),
        valid=jnp.ones(count, bool) if valid is None else jnp.asarray(valid),
    )


def put(slots, new, native=0.0):
    slot, _, _ = ring.allocate(slots, SHAPE, new, 0)
    return ring.append(slots, slot, new, jnp.full((3, len(new.token)), native))[0]


def kept(slots) -> list[int]:
    order, live = ring.in_order(slots)
    return slots.token[order][: int(live)].tolist()


@pytest.mark.parametrize(("chunk_index", "left"), [(0, [1, 2, 3, 4, 5, 6]), (1, [1, 2, 5, 6])])
def test_the_first_prefill_is_never_cut(chunk_index, left):
    slots = put(ring.empty_slots(SHAPE.slots), tokens(Role.PREV_WORDS, [1, 2, 3, 4, 5, 6]))
    assert kept(window.evict(slots, LIMITS, jnp.int32(chunk_index), jnp.int32(99), IDS)) == left


@pytest.mark.parametrize(
    ("said", "last", "words"),
    [([4, 5, 7, 8], 99, [4, 5]), ([4, 5, 8], 99, [4, 5, 8]), ([4, 5], 97, [4, 5]), ([4, 5, 97], 99, [4, 5])],
    ids=["the marker", "half a marker", "another stop, without a slot", "another stop"],
)
def test_what_ends_a_reply_is_no_speech(said, last, words):
    slots = put(ring.empty_slots(SHAPE.slots), tokens(Role.ASST_WORDS, said, chunk=0))
    limits = WindowConfig(vision=2, text=1, sink=9, tail=9).limits(1.0, None)
    assert kept(window.evict(slots, limits, jnp.int32(1), jnp.int32(last), IDS)) == words


def test_slots_for_decoded_words_are_counted_as_taken():
    new = tokens(Role.SYSTEM, [1, 2, 3, 4], valid=[True, False, True, True])
    slot, decode_slot, left = ring.allocate(ring.empty_slots(SHAPE.slots), SHAPE, new, 5)
    assert int(left) == 12 - 3 - 5 and len(set(decode_slot.tolist()) | set(slot.tolist())) == 5 + 3 + 1


def test_new_tokens_stand_right_behind_what_is_kept():
    slots = put(ring.empty_slots(SHAPE.slots), tokens(Role.SYSTEM, [1, 2]))
    new = tokens(Role.LABEL, [3, 4, 5], valid=[True, False, True])
    slot, _, _ = ring.allocate(slots, SHAPE, new, 0)
    slots, order = ring.append(slots, slot, new, jnp.zeros((3, 3)))
    assert order.tolist() == [2, -1, 3] and sorted(slots.order[slots.order >= 0].tolist()) == [0, 1, 2, 3]


def test_native_positions_are_those_of_the_time_of_writing():
    slots = put(ring.empty_slots(SHAPE.slots), tokens(Role.SYSTEM, [1, 2]), native=40.0)
    at = slots.order >= 0
    for native, place, begin in ((False, [0.0, 1.0], 2.0), (True, [40.0, 40.0], 77.0)):
        limits = dataclasses.replace(LIMITS, native=jnp.bool_(native))
        position, after = positions.kept_positions(slots, limits, jnp.float32(77))
        assert np.asarray(position)[:, at].tolist() == [place] * 3 and float(after) == begin


def test_padding_moves_no_position_and_patches_stand_in_their_block():
    new = tokens(Role.LABEL, [1, 2, 3], valid=[True, False, True], step=[1, 5, 2])
    new = dataclasses.replace(new, pos_offset=jnp.asarray([[0.0, 0, 3], [0, 0, 4], [0, 0, 5]]))
    position, after = positions.new_positions(new, jnp.float32(10))
    assert np.asarray(position)[:, [0, 2]].T.tolist() == [[10, 10, 10], [14, 15, 16]] and float(after) == 13
