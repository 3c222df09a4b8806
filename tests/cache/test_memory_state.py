"""What a memory is asked to be, how large it is, and the positions of what it keeps."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from svlm_jax.cache import memory_state as mem
from svlm_jax.cache.memory_shape import MemoryShape, TokenMeta
from svlm_jax.cache.memory_state import memory_shape
from svlm_jax.cache.policies import memory_policy, options
from svlm_jax.errors import ConfigError
from svlm_jax.models.presets import preset

PREFIX = 5
GRID = MemoryShape(prefix=PREFIX, grids=2, rows=1, columns=2, seconds=2.0, step=1.5, budget=8, short=2)


def test_a_budget_must_hold_a_clip():
    with pytest.raises(ConfigError, match="budget=100: expected at least the 192 tokens of a clip"):
        memory_shape(memory_policy(budget=100), prefix=9, grid=(16, 3, 4), seconds=4.0, step=8.0)
    with pytest.raises(ConfigError, match="budget=192: expected more than the 192 tokens of recent_frames=32"):
        memory_shape(memory_policy(budget=192, recent_frames=32), prefix=9, grid=(16, 3, 4), seconds=4.0, step=8.0)


def test_published_defaults():
    """LLaVA-OneVision at 0.5 frames a second: 12,000 tokens, 2 recent frames of 196, 726 pages of the rest, a clip of 6,272."""
    shape = memory_shape(memory_policy(), prefix=14, grid=(32, 14, 14), seconds=2.0, step=0.0)
    assert (shape.budget, shape.short, shape.clip, shape.pages(16)) == (12_000, 392, 6_272, 726)
    assert shape.slots % 8 == 0 and 0 <= shape.slots - (14 + 12_000 + 6_272) < 8


def test_the_state_is_the_published_size_and_knows_no_stream_length():
    """7B, bfloat16: 57,344 bytes a token; nothing in the state is longer for a longer stream."""
    text = preset("qwen2.5-vl-7b").text
    shape = memory_shape(memory_policy("vsb"), prefix=14, grid=(32, 14, 14), seconds=2.0, step=0.0)
    state = jax.eval_shape(
        lambda: mem.empty_memory(memory_policy("vsb"), shape, text.kv_shape, width=text.hidden_size, dtype=jnp.bfloat16)
    )
    kv = 57_344 * shape.slots
    assert kv < mem.memory_bytes(state) < 1.03 * kv
    known = {0, 1, text.num_layers, text.num_kv_heads, text.head_dim, shape.slots, shape.vision}
    assert {axis for x in jax.tree.leaves(state) for axis in x.shape} <= known


def meta(places) -> TokenMeta:
    """A layer that holds the tokens at these places of a stream of 1 x 2 cells a grid."""
    place = np.asarray([places], np.int32)
    return TokenMeta(place, place // 2, np.zeros_like(place), place % 2, place // 2 * 2.0)


def positions(places, live, mode, step=1.5):
    shape = MemoryShape(**{**GRID.__dict__, "step": step})
    position, begin = jax.jit(mem.positions, static_argnums=(2, 3))(meta(places), jnp.asarray([live]), shape, mode)
    return np.asarray(position[0])[:, live].T.tolist(), float(begin[0])


def test_a_clip_goes_on_where_the_stream_stands():
    """Two grids of 1 x 2 cells behind the six tokens, of three grids, that the stream has had."""
    text = preset("qwen2.5-vl-7b").text
    memory = jax.eval_shape(
        lambda: mem.empty_memory(memory_policy(), GRID, text.kv_shape, width=text.hidden_size, dtype=jnp.bfloat16)
    )
    memory = dataclasses.replace(memory, seen=jnp.asarray([6]), grids=jnp.asarray([3]))
    new = mem.incoming(memory, GRID, jnp.asarray([[6.0, 8.0]]))
    assert new.place[0].tolist() == [6, 7, 8, 9] and new.grid[0].tolist() == [3, 3, 4, 4]
    assert new.row[0].tolist() == [0, 0, 0, 0] and new.column[0].tolist() == [0, 1, 0, 1]
    assert new.second[0].tolist() == [6.0, 6.0, 8.0, 8.0]


def test_contiguous_positions_close_the_gaps_and_original_ones_keep_them():
    """Grids 0, 3 and 4 are left, of 1 x 2 cells, 1.5 positions apart."""
    places, live = [0, 1, 6, 9, 0], np.asarray([True] * 4 + [False])
    p = PREFIX
    close, begin = positions(places, live, "contiguous")
    assert close == [[p, p, p], [p, p, p + 1], [p + 1, p, p], [p + 3, p, p + 1]] and begin == p + 4
    wide, begin = positions(places, live, "original")
    assert wide == [[p, p, p], [p, p, p + 1], [p + 4, p, p], [p + 6, p, p + 1]] and begin == p + 7


def test_one_axis_positions_count_tokens():
    places, live = [0, 1, 6, 9, 0], np.asarray([True, False, True, True, False])
    close, begin = positions(places, live, "contiguous", step=0.0)
    assert close == [[PREFIX + i] * 3 for i in range(3)] and begin == PREFIX + 3
    wide, begin = positions(places, live, "original", step=0.0)
    assert wide == [[PREFIX + i] * 3 for i in (0, 6, 9)] and begin == PREFIX + 10


def kept(policy, count, seen, score=None, **changes):
    """Places that a layer keeps of the first `count` of 12 slots, which hold the newest tokens of a stream."""
    small = {"budget": 8, "clip_frames": 4, "recent_frames": 2}
    config = memory_policy(policy, **{name: value for name, value in small.items() if name in options(policy)}, **changes)
    shape = memory_shape(config, prefix=PREFIX, grid=(2, 1, 2), seconds=2.0, step=1.0)
    places = np.arange(seen - count, seen).tolist() + [0] * (shape.vision - count)
    scores = None if score is None else jnp.asarray([list(score) + [0.0] * (shape.vision - count)], jnp.float32)
    keep = jax.jit(mem.keep, static_argnums=(0, 1))
    index, number = keep(config, shape, meta(places), scores, jnp.asarray([count]), jnp.asarray([seen]))
    return np.asarray(places)[np.asarray(index[0])[: int(number[0])]].tolist()


def test_a_window_is_of_seconds_where_clips_come_late():
    """6 s behind a grid that begins at 10 s and lasts 2: what begins at 6 s or later, though there is room for one more."""
    config = memory_policy("window", window=6.0, clip_frames=4)
    shape = memory_shape(config, prefix=PREFIX, grid=(2, 1, 2), seconds=2.0, step=1.0)
    seconds = np.asarray([[2.0, 2, 4, 4, 8, 8, 10, 10] + [0] * (shape.vision - 8)], np.float32)
    held = dataclasses.replace(meta(range(shape.vision)), second=seconds)
    index, number = mem.keep(config, shape, held, None, jnp.asarray([8]), jnp.asarray([8]))
    assert index[0][: int(number[0])].tolist() == [4, 5, 6, 7]


def test_every_policy_keeps_its_own():
    score = [9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0, 0]
    assert kept("fifo", 12, 12) == kept("full", 12, 12) == list(range(4, 12))
    assert kept("window", 10, 12, window=6.0) == list(range(6, 12))  # three grids of 2 s
    assert kept("top-k", 12, 12, score) == [0, 1, 2, 3, 4, 5, 10, 11]  # the last frames are always kept
    # 10 long-term tokens in 6 buckets of 1.67: the best of each, which are the first of each
    assert kept("vsb", 12, 12, score, scatter=1.0) == [0, 1, 3, 5, 6, 8, 10, 11]
    assert kept("vsb", 12, 12, score) == [0, 1, 2, 3, 5, 6, 10, 11]  # half of the six by score alone
    assert kept("vsb", 5, 5, score[:5]) == list(range(5))


STAMPED = MemoryShape(prefix=PREFIX, grids=3, rows=1, columns=2, seconds=2.0, step=1.0, budget=40, short=8, before=4, after=1)
PAD = 9
IDS = [-1, 5, 6, 1, PAD, PAD, 2, 5, 5, 6, 1, PAD, PAD, 2, 5, 5, 6, 1, PAD, PAD, 2]  # stamps of two ids, then of three


def stamped():
    """What three grids with time stamps are, as the first clip of a stream that has seen nothing."""
    text = preset("qwen3-vl-2b").text
    memory = mem.empty_memory(memory_policy("top-k"), STAMPED, text.kv_shape, width=8, dtype=jnp.bfloat16)
    return mem.incoming_stamped(memory, STAMPED, jnp.asarray([[0.0, 2.0, 4.0]]), jnp.asarray([IDS]), PAD)


def test_grids_with_time_stamps_are_blocks():
    """Whole, they stand as in the sequence that they are of; without one of them, as in the sequence without it."""
    new, ids = stamped(), np.asarray(IDS)
    for gone, mode in ((None, "original"), (None, "contiguous"), (1, "contiguous")):
        live = (ids >= 0) & (np.asarray(new.grid[0]) != (-1 if gone is None else gone))
        have, begin = mem.positions(new, jnp.asarray([live]), STAMPED, mode)
        blocks, start = [], PREFIX
        for token in ids[live]:
            first = blocks and ids[live][len(blocks) - 1] == PAD
            if token == PAD:
                column = int(bool(first))
                blocks.append((start, start, start + column))
                start += 2 * column
            else:
                blocks.append((start,) * 3)
                start += 1
        assert np.asarray(have[0])[:, live].T.tolist() == [list(map(float, place)) for place in blocks]
        assert float(begin[0]) == start


def test_a_stamp_is_worth_its_best_cell():
    new, live = stamped(), jnp.asarray([np.asarray(IDS) >= 0])
    score = jnp.arange(len(IDS), dtype=jnp.float32)[None] / 100
    have = np.asarray(mem.marks_like_cells(score, new, live)[0])
    for grid, best in enumerate((0.05, 0.12, 0.19)):
        of = np.arange(7 * grid, 7 * grid + 7)
        text = [i for i in of if IDS[i] >= 0 and IDS[i] != PAD]
        np.testing.assert_allclose(have[text], best)
        np.testing.assert_allclose(have[of[4:6]], of[4:6] / 100)
