"""The slots of a ring by hand, where replies outlive pictures and where pictures outlive replies; seconds in chunks."""

import pytest

from svlm_jax.cache.window import Lengths, WindowConfig, ring_shape, slots_by_role

LENGTHS = Lengths(system=11, previous=2, label=22, query=9, reply=20, patches=30)
ALWAYS = {"system": 11, "previous text": 4 + 6 + 3 + 2, "user turns": 5 * 5, "query": 9}


@pytest.mark.parametrize(
    ("vision", "text", "slots", "spare"),
    [
        (3, 5, {"vision": 90, "vision marks": 6, "time labels": 110, "replies": 5 * 25 - 3}, 4),
        (5, 3, {"vision": 150, "vision marks": 10, "time labels": 66, "replies": 3 * 25 - 3}, 2),
    ],
)
def test_slots_are_those_counted_by_hand(vision, text, slots, spare):
    window = WindowConfig(vision=vision, text=text, sink=6, tail=4)
    assert slots_by_role(window, LENGTHS, 1.0, None) == ALWAYS | slots | {"spare": spare}
    shape = ring_shape(window, LENGTHS, 1.0, None)
    assert (shape.blocks, shape.block) == (vision, 30)
    assert shape.slots == sum(ALWAYS.values()) + sum(slots.values()) + spare


@pytest.mark.parametrize(("seconds", "chunk", "chunks"), [(1.1, 0.1, 11), (2.1, 0.7, 3), (0.65, 0.1, 7)])
def test_seconds_are_chunks_but_for_rounding(seconds, chunk, chunks):
    """2.1 / 0.7 is 3.0000000000000004."""
    assert WindowConfig(vision=seconds, text=1).chunk_counts(chunk, None)[0] == chunks
