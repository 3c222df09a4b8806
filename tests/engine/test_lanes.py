"""Lanes: what is idle does not change, what changes recompiles nothing, and nobody copies another lane's cache."""

import collections
import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from svlm_jax.cache.window import WindowConfig
from svlm_jax.engine import commentate, generate, lanes
from svlm_jax.engine.sampling import Sampling, SamplingBounds, key_of
from svlm_jax.errors import ConfigError, StreamError
from svlm_jax.streaming.pool import LanePool
from tests.streaming import streams
from tests.streaming.streams import SETTINGS, model

LANES = 4


@pytest.fixture(scope="module")
def session():
    """A stream alone, three seconds old."""
    alone = model().stream(SETTINGS)
    streams.run(alone, 0, 3)
    return alone


@pytest.fixture
def pool(session):
    """Four lanes: the stream in lane 1, the same with another seed in lane 3; lanes 0 and 2 are empty."""
    pool = LanePool(session.config, LANES)
    pool.insert(1, session.state)
    pool.insert(3, dataclasses.replace(session.state, key=key_of(99)[None]))
    return pool


def turn(session, second: int = 3):
    grid = session.clip_grid(streams.frames(second))
    return session.prompt.turn(float(second), second + 1.0, grid), streams.frames(second)


def host(state):
    return jax.tree.map(np.asarray, state)


def lane_of(state, lane: int):
    return jax.tree.map(lambda x: x[lane], host(state))


def said(out) -> tuple[int, ...]:
    return tuple(out.token[0][: int(out.count[0])].tolist())


def same(a, b) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.mark.parametrize("chosen", [(1, 3, 2), (1,)], ids=["whole pool", "some rows"])
def test_an_idle_lane_does_not_change_and_an_active_one_says_what_it_says_alone(session, pool, chosen):
    before, alone = host(pool.state), session.fork()
    one = turn(session)
    outs, _ = pool.step(model().params, dict.fromkeys(chosen, one))
    after = host(pool.state)
    for lane in range(LANES):
        idle = lane not in chosen
        assert same(lane_of(before, lane), lane_of(after, lane)) == idle, lane
    assert said(outs[1]) == alone.feed(streams.chunk(3)).tokens
    assert same(lane_of(after, 1), lane_of(alone.state, 0)) or np.allclose(after.keys[0][1], alone.state.keys[0][0], atol=1e-5)


def test_no_token_is_decoded_for_an_idle_lane(session, pool):
    rows = jax.tree.map(lambda x: np.stack([x] * LANES), turn(session))
    active = np.asarray([False, True, False, False])
    _, out = lanes.step(model().params, pool.state, *rows, active, config=pool.config)
    assert out.count[1] > 0 and out.count.tolist() == [0, out.count[1], 0, 0]
    assert not out.token[0].any() and out.left[0] == 0


def replied(run_token, carry, logits, *, penalized_ids, stop, **drawn):
    """The whole reply to the logits of its first token."""
    reply = generate.begin(logits, penalized_ids=penalized_ids, **drawn)
    return generate.extend(run_token, carry, reply, stop=stop, **drawn)


def test_the_loop_ends_with_the_last_active_lane():
    """Lane 0 has a cap of 3, lane 1 is idle and would go on for 8, lane 2 says a stop id at once."""
    bounds = SamplingBounds(8, 1)
    limits = jax.tree.map(
        lambda *xs: jnp.stack(xs), *(bounds.limits(Sampling(temperature=0.0, max_new_tokens=n)) for n in (3, 8, 8))
    )
    logits = jnp.eye(5)[jnp.asarray([2, 2, 4])]

    def run_token(ran, token, number, on):
        return ran + 1, logits

    ran, reply = replied(
        run_token,
        jnp.int32(0),
        logits,
        penalized_ids=jnp.zeros((3, 5), bool),
        key=jnp.stack([key_of(0)] * 3),
        active=jnp.asarray([True, False, True]),
        limits=limits,
        bounds=bounds,
        stop=(4,),
    )
    assert (int(ran), reply.count.tolist()) == (2, [3, 0, 1])


def test_each_token_of_a_reply_is_drawn_anew():
    """From equal logits, of which a key that did not depend on the token's number would draw the same id for ever."""
    bounds, sampling = SamplingBounds(8, 0), Sampling(temperature=1.0, top_k=0, repetition_penalty=1.0, max_new_tokens=8)
    flat = jnp.zeros((1, 1000))
    _, reply = replied(
        lambda carry, token, number, on: (carry, flat),
        (),
        flat,
        penalized_ids=jnp.zeros((1, 1000), bool),
        key=key_of(0)[None],
        active=jnp.ones(1, bool),
        limits=jax.tree.map(lambda x: x[None], bounds.limits(sampling)),
        bounds=bounds,
        stop=(),
    )
    assert len(set(reply.token[0].tolist())) > 4


def test_settings_change_and_nothing_recompiles(session, pool):
    wide = dataclasses.replace(session.sampling.bounds, top_k=50)
    pool = LanePool(dataclasses.replace(session.config, sampling=wide), LANES)
    window = SETTINGS.window.limits(1.0, None)
    programs = (lanes.step, lanes.insert, lanes.configure, lanes.fork, lanes.extract, lanes.release, lanes.open_lane)

    def walk(lane: int, other: int, sampling: Sampling, window) -> tuple[int, ...]:
        pool.insert(lane, session.state)
        pool.state = lanes.configure(pool.state, lane, window, wide.limits(sampling))
        outs, _ = pool.step(model().params, {lane: turn(session)})
        pool.state = lanes.fork(pool.state, lane, other)
        pool.extract(other)
        pool.state = lanes.open_lane(pool.state, lane, window, wide.limits(sampling), key_of(lane))
        pool.state = lanes.release(pool.state, other)
        return said(outs[lane])

    first = walk(1, 2, session.sampling, window)
    before = [program._cache_size() for program in programs]
    greedy = dataclasses.replace(session.sampling, temperature=0.0)
    short = dataclasses.replace(session.sampling, max_new_tokens=3)
    narrow = WindowConfig(vision=2, text=2, sink=2, tail=3).limits(1.0, None)
    assert walk(3, 0, short, window) == first[:3]
    assert walk(0, 3, greedy, window) != first
    assert walk(2, 0, dataclasses.replace(session.sampling, top_k=3, top_p=0.5, repetition_penalty=1.4), narrow) != first
    assert [program._cache_size() for program in programs] == before


@pytest.mark.parametrize("rows", [None, 2], ids=["whole pool", "some rows"])
def test_keys_and_values_are_written_in_place(session, pool, rows):
    """In the compiled second all keys and values alias the donated ones, and no token copies an array of a pool's size.

    XLA for CPUs copies keys, not values, at the second's beginning and end: the rotated workspace reads the old ones, and it
    does not see that it does so before the new ones are written.
    """
    count = LANES if rows is None else rows
    inputs = jax.tree.map(lambda x: np.stack([x] * count), turn(session))
    named = None if rows is None else np.arange(rows, dtype=np.int32)
    step = commentate.step.lower(model().params, pool.state, *inputs, np.ones(count, bool), named, config=pool.config)
    copies = assert_aliased(step.compile(), pool)
    assert set(copies) <= {"ENTRY"}
    assert copies["ENTRY"] <= 2 * len(pool.state.keys)


def test_joining_and_leaving_copy_no_other_lane(session, pool):
    for function, arguments in (
        (lanes.insert, (1, session.state)),
        (lanes.fork, (1, 2)),
        (lanes.release, (1,)),
        (lanes.configure, (1, SETTINGS.window.limits(1.0, None), session.sampling.limits)),
    ):
        assert not assert_aliased(function.lower(pool.state, *arguments).compile(), pool)


def assert_aliased(compiled, pool) -> collections.Counter[str]:
    """All keys and values alias their donated inputs. Returns the copies of arrays of a pool's size, by computation."""
    keys = pool.state.keys
    assert compiled.memory_analysis().alias_size_in_bytes >= 2 * len(keys) * keys[0].nbytes
    array = r"\w+\[" + ",".join(map(str, keys[0].shape)) + r"\]"
    copies, computation = collections.Counter(), ""
    for line in compiled.as_text().splitlines():
        if line.endswith("{") and not line.startswith(" "):
            computation = line.split()[0]
        if re.search(rf"= {array}\S* copy\(", line):
            copies[computation] += 1
    return copies


def test_a_fork_goes_its_own_way_and_a_released_lane_is_empty(session, pool):
    pool.state = lanes.fork(pool.state, 1, 0)
    assert same(lane_of(pool.state, 0), lane_of(session.state, 0))
    outs, _ = pool.step(model().params, {0: turn(session)})
    assert outs[0].count[0] > 0 and same(lane_of(pool.state, 1), lane_of(session.state, 0))
    pool.state = lanes.release(pool.state, 0)
    assert (host(pool.state).slots.order[0] == -1).all() and pool.state.chunk_index.tolist() == [0, 3, 0, 3]


def test_sessions_share_a_pool(session):
    """A lane is taken by the first chunk, given back at the end, and refused when there is none, or when it is too small."""
    pool = LanePool(session.config, 1)
    first, second = (model().stream(SETTINGS, pool=pool) for _ in range(2))
    assert streams.run(first, 0, 1) == streams.run(model().stream(SETTINGS), 0, 1)
    with pytest.raises(StreamError, match="all 1 lanes hold a stream"):
        streams.run(second, 0, 1)
    first.close()
    assert streams.run(second, 0, 1) == streams.run(model().stream(SETTINGS), 0, 1)
    large = model().stream(SETTINGS, pool=pool, window=dataclasses.replace(SETTINGS.window, vision=9, text=9))
    with pytest.raises(ConfigError, match="9 clips of"):
        streams.run(large, 0, 1)


def test_the_cache_has_the_dtype_that_was_asked_for():
    narrow = model().stream(SETTINGS, cache_dtype="bfloat16", sampling=streams.sampling(temperature=0.0))
    wide = model().stream(SETTINGS, sampling=streams.sampling(temperature=0.0))
    streams.run(narrow, 0, 2)
    streams.run(wide, 0, 2)
    assert narrow.state.keys[0].dtype == narrow.state.values[0].dtype == jnp.bfloat16
    assert wide.state.keys[0].dtype == jnp.float32
    assert wide.config.cache_bytes.stored == 2 * narrow.config.cache_bytes.stored


def test_a_pool_has_lanes():
    with pytest.raises(ConfigError, match="lanes=0"):
        lanes.init(None, 0)
