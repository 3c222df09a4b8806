"""Vision Sink Bucketing keeps exactly what a plain greedy loop keeps, and what the paper says it keeps."""

import functools
import math

import jax
import numpy as np
import pytest

from svlm_jax.cache import vsb

V = 48


def greedy(score, place, candidate, length, *, budget, top, capacity=1):
    """The rule as the paper words it, one token after the other."""
    buckets = max(budget // capacity, 1)
    ranked = sorted(np.flatnonzero(candidate).tolist(), key=lambda slot: (-score[slot], slot))
    kept, room = [], [capacity] * buckets
    home = {slot: math.ceil((int(place[slot]) + 1) * buckets / length) - 1 for slot in ranked}
    for slot in ranked[: min(top, budget)]:
        kept.append(slot)
        room[home[slot]] -= 1
    for slot in ranked:
        if slot not in kept and len(kept) < budget and room[home[slot]] > 0:
            kept.append(slot)
            room[home[slot]] -= 1
    for slot in ranked:  # buckets that have lost their tokens leave room
        if slot not in kept and len(kept) < budget:
            kept.append(slot)
    return sorted(kept)


@functools.cache
def select(budget, top, capacity):
    return jax.jit(functools.partial(vsb.select, budget=budget, top=top, capacity=capacity))


def case(seed):
    """A cache that has been compressed before: places with gaps, few distinct scores, some slots that are no candidates."""
    rng = np.random.default_rng(seed)
    length = int(rng.integers(V, 5 * V))
    place = np.sort(rng.choice(length, V, replace=False)).astype(np.int32)
    score = rng.integers(0, 12, V).astype(np.float32) if seed % 2 else rng.random(V, np.float32)
    return score, place, rng.random(V) < 0.9, np.int32(length)


@pytest.mark.parametrize(
    ("budget", "top", "capacity"), [(16, 8, 1), (16, 0, 1), (16, 16, 1), (20, 5, 2), (21, 6, 4), (1, 0, 1)]
)
def test_equals_the_greedy_loop(budget, top, capacity):
    program = select(budget, top, capacity)
    for seed in range(60):
        score, place, candidate, length = case(seed)
        kept = np.flatnonzero(program(score, place, candidate, length)).tolist()
        assert kept == greedy(score, place, candidate, int(length), budget=budget, top=top, capacity=capacity)
        assert len(kept) == min(budget, candidate.sum())
        best = sorted(np.flatnonzero(candidate).tolist(), key=lambda slot: (-score[slot], slot))[:top]
        assert set(best[:budget]) <= set(kept)


def test_the_oracle_needs_every_phase():
    """Without buckets, without phase 1 and without the filling up, other tokens are kept: each rule is seen by the oracle."""
    differs = {"buckets": 0, "top": 0}
    for seed in range(20):
        score, place, candidate, length = case(seed)
        kept = np.asarray(select(16, 8, 1)(score, place, candidate, length))
        differs["buckets"] += not np.array_equal(kept, select(16, 16, 1)(score, place, candidate, length))
        differs["top"] += not np.array_equal(kept, select(16, 0, 1)(score, place, candidate, length))
    assert min(differs.values()) > 5
    old = np.arange(V, dtype=np.int32)  # all in the first tenth of the stream: few buckets, the rest is filled up
    assert np.asarray(select(16, 0, 1)(np.ones(V, np.float32), old, np.ones(V, bool), np.int32(10 * V))).sum() == 16


def test_fewer_candidates_than_the_budget_all_survive():
    score, place, _, length = case(0)
    few = np.arange(V) < 7
    assert np.array_equal(select(16, 8, 1)(score, place, few, length), few)


def test_bucket_of_the_paper():
    """p = 256, counted from 1, of L = 1000 in N = 10 buckets is in bucket 3, counted from 1."""
    assert int(vsb.bucket(np.int32(255), np.int32(1000), 10)) + 1 == 3


@pytest.mark.parametrize("length", [1, 7, 1000, 18_272, 20_000_000, vsb.LONGEST])
@pytest.mark.parametrize("buckets", [1, 2, 10, 11_608, 12_000])
def test_buckets_are_exact_for_days_of_video(length, buckets):
    rng = np.random.default_rng(0)
    place = np.unique(np.concatenate([[0, length // 2, length - 1], rng.integers(0, length, 50)])).astype(np.int32)
    expected = [-(-(int(p) + 1) * buckets // length) - 1 for p in place]
    assert np.asarray(vsb.bucket(place, np.int32(length), buckets)).tolist() == expected


def test_recent_tokens_are_never_compressed_and_take_no_part_in_the_buckets():
    count, short, budget = 40, 6, 20
    program = jax.jit(functools.partial(vsb.compress, budget=budget, short=short, top=7))
    for seed in range(20):
        score, place, _, length = case(seed)
        score[count - short : count] = -1.0
        kept = np.asarray(program(score, place, np.int32(count), length))
        assert kept.sum() == budget and kept[count - short : count].all() and not kept[count:].any()
        candidate = np.arange(V) < count - short
        long = greedy(score, place, candidate, int(length) - short, budget=budget - short, top=7)
        assert np.flatnonzero(kept & candidate).tolist() == long


def survivors(by_stream, clips=24, clip=16, budget=32):
    """Places that survive a long stream of equally good tokens with noise."""
    rng = np.random.default_rng(0)
    program = jax.jit(functools.partial(vsb.compress, budget=budget, short=0, top=4, by_stream=by_stream))
    place = np.zeros(0, np.int32)
    for i in range(clips):
        place = np.concatenate([place, np.arange(i * clip, (i + 1) * clip, dtype=np.int32)])
        slots = np.zeros(budget + clip, np.int32)
        slots[: len(place)] = place
        score = rng.random(budget + clip, np.float32)
        kept = np.asarray(program(score, slots, np.int32(len(place)), np.int32((i + 1) * clip)))
        place = slots[np.asarray(vsb.compact(kept, budget))][: kept.sum()]
    return place, clips * clip


def test_stream_buckets_keep_the_old_and_cache_buckets_forget_them():
    """Spans of what is cached keep the same share of everything at each clip, so age thins out exponentially."""
    stream, length = survivors(True)
    cache, _ = survivors(False)
    assert len(stream) == len(cache) == 32 and not np.array_equal(stream, cache)
    older = [(places < length // 2).sum() for places in (stream, cache)]
    assert older[0] >= 8 > 2 * older[1]
