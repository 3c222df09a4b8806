"""A session as its user sees it: saved, forked, batched, bounded, and honest about what it cannot do."""

import dataclasses
import gc
import json

import jax
import numpy as np
import pytest

from svlm_jax.cache.ring import Role
from svlm_jax.cache.window import WindowConfig
from svlm_jax.engine import commentate as step
from svlm_jax.errors import CheckpointError, ConfigError, StreamError
from svlm_jax.host.folders import current
from svlm_jax.streaming import pool as pools
from svlm_jax.streaming.caption import Timing
from svlm_jax.streaming.pool import LanePool
from svlm_jax.video.chunk import Chunk
from tests import clips
from tests.streaming import streams
from tests.streaming.streams import SETTINGS, model, run

NARROW = dataclasses.replace(SETTINGS.window, sink=2, tail=3)
ROUNDS = 9  # long enough for every rule of the small window to have acted


def stream(**changes):
    return model().stream(SETTINGS, **changes)


@pytest.fixture(scope="module")
def uninterrupted():
    """What the standard stream says, with randomness."""
    return run(stream(), 0, ROUNDS)


def test_a_stream_is_random_and_reproducible(uninterrupted):
    assert run(stream(), 0, 3) == uninterrupted[:3]
    assert run(stream(seed=8), 0, 3) != uninterrupted[:3]


def test_resumed_equals_uninterrupted(uninterrupted, tmp_path):
    first = stream()
    assert run(first, 0, 5) == uninterrupted[:5]
    first.save(tmp_path / "saved")
    first.save(tmp_path / "saved")  # a later save replaces an earlier one whole
    assert sorted(p.name for p in tmp_path.iterdir()) == ["saved"]
    second = model().resume(tmp_path / "saved")
    assert second.position == 5.0
    assert run(second, 5, ROUNDS) == uninterrupted[5:]
    assert run(first, 5, ROUNDS) == uninterrupted[5:]  # saving did not disturb the stream either


def test_a_fork_leaves_the_stream_untouched(uninterrupted):
    trunk = stream()
    run(trunk, 0, 4)
    twin = trunk.fork()
    before = jax.tree.map(np.asarray, trunk.state)
    assert run(twin, 4, 6, seed=99) != uninterrupted[4:6]
    jax.tree.map(np.testing.assert_array_equal, before, jax.tree.map(np.asarray, trunk.state))
    assert run(trunk, 4, ROUNDS) == uninterrupted[4:]


def test_future_frames_change_nothing(uninterrupted):
    other = stream()
    assert run(other, 0, 4) == uninterrupted[:4]
    assert run(other, 4, 6, seed=5) != uninterrupted[4:6]


def test_split_timing_says_the_same_and_times_each_part(uninterrupted, monkeypatch):
    """By a clock that only the three programs move, each by a time of its own."""
    now = [0.0]
    monkeypatch.setattr(pools.time, "perf_counter", lambda: now[0])

    def takes(seconds, program):
        def run_it(*arguments, **options):
            now[0] += seconds
            return program(*arguments, **options)

        return run_it

    for name, seconds in (("_encode", 1.0), ("_prefill", 10.0), ("_reply", 100.0)):
        monkeypatch.setattr(pools, name, takes(seconds, getattr(pools, name)))
    split = stream(split_timing=True)
    captions = [split.feed(streams.chunk(i)) for i in range(6)]
    assert [caption.tokens for caption in captions] == uninterrupted[:6]
    timing = captions[-1].timing
    assert (timing.vision, timing.prefill, timing.decode, timing.step) == (1e3, 1e4, 1e5, 1.11e5)


@pytest.mark.slow
def test_streams_in_a_batch_say_what_they_say_alone(uninterrupted):
    """Three streams: at another round, with another window, and with other frames; one program runs them together."""
    late = stream()
    run(late, 0, 3)
    expected = [
        run(late.fork(), 3, 8),
        run(stream(window=NARROW), 0, 5),
        run(stream(seed=3), 0, 5, seed=1),
    ]
    # The narrow window needs fewer slots: in a pool it lives in the larger ring.
    pool = LanePool(late.config, 4)
    pooled = [stream(pool=pool), stream(pool=pool, window=NARROW), stream(pool=pool, seed=3)]
    pooled[0].prepare(streams.chunk(0))
    pooled[0].state = late.state
    pooled[0].chunks = 3
    said = [[], [], []]
    for i in range(5):
        chunks = [streams.chunk(3 + i), streams.chunk(i), streams.chunk(i, seed=1)]
        turns = {s.lane: turn for s, chunk in zip(pooled, chunks, strict=True) if (turn := s.prepare(chunk))}
        outs, times = pool.step(model().params, turns)
        for words, s, chunk in zip(said, pooled, chunks, strict=True):
            words.append(s.finish(chunk, outs[s.lane], Timing(0.0, *times)).tokens)
    assert said == expected


def test_nothing_recompiles_and_no_memory_grows():
    session = stream()
    run(session, 0, 6)
    before, live = step.step._cache_size(), []
    for i in range(6, 40):
        session.feed(streams.chunk(i))
        if i % 11 == 6:
            gc.collect()
            live.append(sum(x.nbytes for x in jax.live_arrays()))
    assert len(live) == 4 and len(set(live)) == 1
    assert step.step._cache_size() == before


def test_the_step_takes_its_state_and_gives_it_back():
    session = stream()
    run(session, 0, 1)
    old = session.pool.state
    run(session, 1, 2)
    assert all(x.is_deleted() for x in (*old.keys, *old.values))


def test_long_history_is_cut_before_it_is_read_and_published_code_reads_it_whole():
    words = "one two three four five six seven eight nine ten " * 3
    cut, whole = stream(previous_text=words), stream(previous_text=words, parity=True)
    run(cut, 0, 1)
    run(whole, 0, 1)
    held = [int(s.last.usage[0][Role.PREV_WORDS]) for s in (cut, whole)]
    assert held == [12 + 15, len(words)]
    run(whole, 1, 2)
    assert int(whole.last.usage[0][Role.PREV_WORDS]) == 12 + 15


def test_the_marker_is_cut_only_where_it_stands():
    """A reply that hits the cap loses its last words in the published code; here it keeps them."""
    capped = {"sampling": streams.sampling(temperature=0.0, max_new_tokens=6), "previous_text": ""}
    ours, published = stream(**capped), stream(**capped, parity=True)
    for session in (ours, published):
        said = run(session, 0, 4)
        assert len(said[0]) == 6 and ours.turns.im_end not in said[0]
        run(session, 4, 5)
    held = [int(s.last.usage[0][Role.PREV_WORDS]) for s in (ours, published)]
    assert held == [6, 6 - len(ours.turns.marker)]


# ------------------------------------------------------------------------------------------- windows


@pytest.mark.parametrize("said", ["A goal ...", "A ... goal", "Wait. . ...", " ...", "so ....", "..", "ends ."])
def test_words_that_have_been_told_stay(said):
    session = model().stream(SETTINGS)
    tokens = tuple(model().tokenizer.encode(said))
    told = [session.words(tokens[:count]) for count in range(len(tokens) + 1)]
    for earlier, later in zip(told, [*told[1:], session.text(tokens)], strict=True):
        assert later.startswith(earlier)
    assert told[-1] or said in (" ...", "..")


@pytest.mark.parametrize(("seconds", "rounds"), [(1.0, 4), (2.0, 2), (4.0, 1), (3.0, 2)])
def test_windows_are_counted_in_seconds(seconds, rounds):
    session = stream(chunk_seconds=seconds)
    for i in range(5):
        session.feed(streams.chunk(i, seconds=seconds, count=int(2 * seconds)))
    patches = session.config.ring.block
    assert session.config.ring.blocks == rounds
    assert session.last.usage[0][Role.PATCH] == rounds * patches


def test_a_window_of_no_seconds_is_blind():
    blind = stream(window=dataclasses.replace(SETTINGS.window, vision=0))
    assert run(blind, 0, 3) == run(stream(window=dataclasses.replace(SETTINGS.window, vision=0)), 0, 3, seed=50)
    assert blind.last.usage[0][Role.PATCH] == blind.last.usage[0][Role.MARK] == 0


def test_hard_reset_forgets_every_window(uninterrupted):
    session = stream(window=WindowConfig(vision=3, memory="hard-reset"))
    captions = [session.feed(streams.chunk(i)) for i in range(7)]
    vision = [caption.usage["vision"][0] // session.config.ring.block for caption in captions]
    assert vision == [1, 2, 3, 1, 2, 3, 1]
    assert captions[3].tokens != uninterrupted[3]


def test_full_attention_keeps_everything_and_stops_when_it_is_full():
    session = stream(window=WindowConfig(memory="full"), duration=4.0)
    run(session, 0, 4)
    assert session.last.usage[0][Role.PATCH] == 4 * session.config.ring.block
    with pytest.raises(StreamError, match=r"cache of \d+ slots is full at \d+ s"):
        run(session, 4, 12)


def test_windows_that_never_close_need_a_length():
    with pytest.raises(ConfigError, match="memory=full keeps everything"):
        run(stream(window=WindowConfig(memory="full")), 0, 1)
    with pytest.raises(ConfigError, match="keeps every word: expected the length"):
        run(stream(window=WindowConfig(sink=None, tail=None)), 0, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": 0}, "text=0"),
        ({"vision": -1}, "vision=-1"),
        ({"vision": float("inf")}, "finite"),
        ({"sink": 3, "tail": None}, "both"),
        ({"sink": -1}, "sink=-1"),
        ({"memory": "some"}, "memory='some'"),
        ({"positions": "odd"}, "positions='odd'"),
        ({"vision": 0, "memory": "hard-reset"}, "two resets"),
    ],
)
def test_impossible_windows(change, message):
    with pytest.raises(ConfigError, match=message):
        WindowConfig(**change)


def test_a_window_that_no_device_can_hold():
    with pytest.raises(ConfigError, match="GiB: expected a shorter one"):
        run(stream(window=dataclasses.replace(SETTINGS.window, vision=1e9)), 0, 1)


def test_usage_stays_within_its_limits():
    session = stream()
    for i in range(ROUNDS):
        usage = session.feed(streams.chunk(i)).usage
        assert set(usage) == {"system", "previous text", "vision", "turns"}
        assert all(0 <= used <= limit for used, limit in usage.values()), usage
    assert sum(limit for _, limit in usage.values()) == session.config.ring.slots


# ------------------------------------------------------------------------------------------- pictures


def test_a_smaller_picture_mid_stream_is_read_at_its_own_size():
    session = stream()
    run(session, 0, 3)
    run(session, 3, 4, size=(56, 56))
    cells = session.config.ring.block
    assert session.last.usage[0][Role.PATCH] == 3 * cells + 4
    run(session, 4, 9)
    assert session.last.usage[0][Role.PATCH] == 4 * cells


def test_a_larger_picture_mid_stream_is_refused():
    session = stream()
    run(session, 0, 1)
    with pytest.raises(StreamError, match="do not fit the cache"):
        run(session, 1, 2, size=(84, 84))


def test_frames_that_are_no_patches():
    with pytest.raises(ConfigError, match="multiples of 28"):
        stream().feed(Chunk(frames=np.zeros((2, 3, 56, 60), np.uint8), start=0.0, end=1.0))
    with pytest.raises(ConfigError, match="multiple of 2 frames"):
        stream().feed(Chunk(frames=np.zeros((3, 3, 56, 84), np.uint8), start=0.0, end=1.0))


# ------------------------------------------------------------------------------------------- saved streams that do not fit


def test_a_saved_stream_keeps_its_settings(tmp_path):
    with pytest.raises(ConfigError, match="window: a saved stream"):
        model().resume(tmp_path, window=SETTINGS.window)


def test_nothing_to_save_yet(tmp_path):
    with pytest.raises(StreamError, match="not seen any video"):
        stream().save(tmp_path / "saved")


def test_not_a_saved_stream(tmp_path):
    with pytest.raises(CheckpointError, match="expected a saved stream"):
        model().resume(tmp_path)


def test_a_stream_of_another_model(tmp_path):
    session = stream()
    run(session, 0, 1)
    session.save(tmp_path / "saved")
    with pytest.raises(CheckpointError, match="another model"):
        model("qwen2_vl").resume(tmp_path / "saved")
    described = current(tmp_path / "saved") / "session.json"
    saved = json.loads(described.read_text())
    described.write_text(json.dumps({**saved, "format": 99}))
    with pytest.raises(CheckpointError, match="format 99"):
        model().resume(tmp_path / "saved")
    for field, value in (("chunks", -1), ("position", float("nan")), ("clip_shape", [2, 3, 2**14, 2**14 + 1]), ("dtype", None)):
        described.write_text(json.dumps({**saved, field: value}))
        with pytest.raises(CheckpointError, match=f"field '{field}"):
            model().resume(tmp_path / "saved")


@pytest.mark.slow
def test_watching_a_file_goes_on_where_a_saved_stream_stopped(tmp_path):
    clip = str(clips.render(tmp_path / "clip.mp4", frames=4 * 5, rate=4))
    settings = {"window": SETTINGS.window, "seed": 3}
    whole = [caption.tokens for caption in model().watch(clip, **settings)]
    assert len(whole) == 5
    first = model().stream(**settings)
    begun = first.watch(clip)
    said = [next(begun).tokens for _ in range(2)]
    begun.close()
    first.save(tmp_path / "saved")
    rest = [caption.tokens for caption in model().resume(tmp_path / "saved").watch(clip)]
    assert said + rest == whole
