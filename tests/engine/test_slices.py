"""A second in slices says what the whole second says, word by word, and leaves the pool where the whole second leaves it."""

import itertools

import jax
import numpy as np
import pytest

from svlm_jax.engine import lanes, slices
from svlm_jax.streaming.pool import LanePool
from tests.engine.test_lanes import assert_aliased
from tests.streaming import streams
from tests.streaming.streams import SETTINGS, model

LANES = 3


@pytest.fixture(scope="module")
def session():
    """A stream of three seconds that speaks."""
    made = model().stream(SETTINGS)
    streams.run(made, 0, 3)
    return made


@pytest.fixture
def pool(session):
    made = LanePool(session.config, LANES)
    made.insert(0, session.state)
    made.insert(2, session.state)
    return made


def turn(session):
    twin = session.fork()
    return twin.prepare(streams.chunk(3))


def in_slices(pool, turns, tokens, between=lambda: None):
    """The tokens of each lane after each slice."""
    replies = pool.begin(model().params, turns)
    told = [{lane: said(replies, lane) for lane in turns}]
    while replies.speaking:
        between()
        replies.extend(model().params, tokens)
        told.append({lane: said(replies, lane) for lane in turns})
    return told


def said(replies, lane):
    out = replies.so_far(lane)
    return tuple(out.token[0, : out.count[0]].tolist())


@pytest.mark.parametrize("chosen", [(0, 2, 1), (2,)], ids=["whole pool", "some rows"])
@pytest.mark.parametrize("tokens", [1, 3, 100])
def test_the_same_tokens_and_the_same_pool(session, pool, chosen, tokens):
    whole = LanePool(session.config, LANES)
    whole.state = jax.tree.map(lambda x: x.copy(), pool.state)
    turns = dict.fromkeys(chosen, turn(session))
    outs, _ = whole.step(model().params, turns)
    told = in_slices(pool, turns, tokens)
    for lane in chosen:
        assert told[-1][lane] == tuple(outs[lane].token[0, : outs[lane].count[0]].tolist())
        for earlier, later in itertools.pairwise(told):
            assert later[lane][: len(earlier[lane])] == earlier[lane] and len(later[lane]) <= len(earlier[lane]) + tokens
    assert max(len(reply) for reply in told[-1].values()) > 3, "the replies are long enough to be cut"
    for ours, want in zip(jax.tree.leaves(pool.state.metadata()), jax.tree.leaves(whole.state.metadata()), strict=True):
        np.testing.assert_array_equal(ours, want)


def test_the_first_token_comes_before_the_others(session, pool):
    told = in_slices(pool, {0: turn(session)}, 1)
    assert [len(step[0]) for step in told] == list(range(1, len(told) + 1))


def test_other_lanes_may_run_between_two_slices(session, pool):
    alone = in_slices(pool, {0: turn(session)}, 2)[-1][0]
    pool.insert(0, session.state)

    def between():
        pool.step(model().params, {2: turn(session)})
        pool.insert(2, session.state)
        pool.state = lanes.release(pool.state, 1)

    assert in_slices(pool, {0: turn(session)}, 2, between)[-1][0] == alone


def test_a_lane_that_is_left_belongs_to_another(session, pool):
    replies = pool.begin(model().params, {0: turn(session), 2: turn(session)})
    before = said(replies, 0)
    replies.leave(0)
    pool.state = lanes.release(pool.state, 0)
    while replies.speaking:
        replies.extend(model().params, 2)
    assert said(replies, 0) == before and len(said(replies, 2)) > len(before)
    assert not (np.asarray(pool.state.slots.order[0]) >= 0).any(), "nothing was written to the lane that was left"


def test_slices_of_any_length_are_one_program(session, pool):
    in_slices(pool, {0: turn(session)}, 1)
    before = slices.extend._cache_size()
    in_slices(pool, {0: turn(session)}, 5)
    assert slices.extend._cache_size() == before


@pytest.mark.parametrize("chosen", [(0, 2, 1), (2,)], ids=["whole pool", "some rows"])
def test_no_program_copies_keys_or_values_of_the_pool(session, pool, chosen):
    """Unlike the whole second on a CPU, which reads old keys and writes new ones in one program."""
    _, (turns, frames, active, named) = pool._rows(dict.fromkeys(chosen, turn(session)))
    looked = slices.look(model().params, pool.state, turns, frames, active, named, config=pool.config)
    begun = slices.begin.lower(model().params, pool.state, *looked, named, config=pool.config)
    assert not assert_aliased(begun.compile(), pool)
    pool.state, speech, _ = slices.begin(model().params, pool.state, *looked, named, config=pool.config)
    extended = slices.extend.lower(model().params, pool.state, speech, active, np.int32(2), named, config=pool.config)
    assert not assert_aliased(extended.compile(), pool)
