"""Which frames make a chunk, on frame numbers instead of pictures."""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest

from svlm_jax.video.sampler import PtsSampler, PublishedSampler, Sampler

RATES = [Fraction(24_000, 1001), 24, 25, Fraction(30_000, 1001), 30, 50, Fraction(60_000, 1001), 60]


def constant(rate: Fraction | int, seconds: float) -> list[float]:
    return [i / float(rate) for i in range(int(seconds * float(rate)))]


def run(sampler: Sampler, times: Sequence[float], last: float = 0.0) -> dict[int, list[int]]:
    """Frame numbers by chunk."""
    steps = [*np.diff(times), last or (times[-1] - times[-2] if len(times) > 1 else 0.04)]
    chunks = {}
    for i, (time, step) in enumerate(zip(times, steps, strict=True)):
        chunks |= dict(sampler.feed(time, i, step))
    chunks |= dict(sampler.finish(times[-1] + steps[-1]))
    return chunks


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("fps", [1, 2, 4, 8])
@pytest.mark.parametrize("decimals", [9, 3], ids=["exact", "milliseconds"])
def test_frames_are_distinct_and_near_their_times(rate: Fraction | int, fps: int, decimals: int) -> None:
    times = [round(time, decimals) for time in constant(rate, 60)]
    chunks = run(PtsSampler(fps, 2 * fps), times)
    assert list(chunks) == list(range(30))
    frames = [frame for chunk in chunks.values() for frame in chunk]
    inside = [i for i in range(len(frames)) if i / fps <= times[-1]]
    assert all(frames[i + 1] > frames[i] for i in inside[:-1])
    assert all(abs(times[frames[i]] - i / fps) <= 0.5 / float(rate) + 2e-3 for i in inside)


def test_sampling_at_the_rate_of_the_video_takes_every_frame() -> None:
    chunks = run(PtsSampler(30, 30), [round(time, 3) for time in constant(30, 10)])
    assert [frame for chunk in chunks.values() for frame in chunk] == list(range(300))


def test_below_the_wanted_rate_frames_repeat() -> None:
    times = constant(Fraction(25, 2), 4)
    assert run(PtsSampler(25, 26), times)[0][:6] == [0, 0, 1, 1, 2, 2]


def test_a_still_picture_never_shows_what_follows() -> None:
    chunks = run(PtsSampler(2, 2), [0.0, 0.2, 0.7, 0.71, 3.4, 3.6, 5.0], last=0.04)
    assert chunks == {0: [0, 1], 1: [3, 3], 2: [3, 3], 3: [3, 4], 4: [5, 5], 5: [6, 6]}


def test_the_last_chunk_is_padded() -> None:
    assert run(PtsSampler(4, 4), constant(24, 2.25))[2] == [48, 53, 53, 53]
    assert 2 not in run(PtsSampler(4, 4), constant(24, 2))


def test_a_frame_or_two_behind_a_chunk_have_none_of_their_own() -> None:
    """But a picture after a pause, and a video of nothing else, have."""
    assert [len(run(PtsSampler(2, 2), constant(25, seconds))) for seconds in (8.04, 8.08, 8.16, 0.04)] == [8, 8, 9, 1]
    assert run(PtsSampler(2, 2), [*constant(25, 7), 8.0], last=0.04)[8] == [175, 175]


def test_start_begins_the_grid_there() -> None:
    assert run(PtsSampler(2, 2, start=3.3), constant(24, 6))[0] == [79, 91]


@pytest.mark.parametrize("make", [PtsSampler, PublishedSampler])
def test_a_gap_skips_whole_chunks(make: type) -> None:
    sampler = make(2, 2)
    before = [chunk for i in range(60) for chunk in sampler.feed(i / 24, i, 1 / 24)]
    assert [index for index, _ in before] == [0, 1]
    sampler.skip_to(7.25)
    after = [chunk for i in range(44) for chunk in sampler.feed(7.25 + i / 24, 1000 + i, 1 / 24)]
    assert [index for index, _ in after] == [7, 8]
    assert min(frame for _, frames in after for frame in frames) >= 1000


def published(times: Sequence[float], chunk: int, fps: int = 2) -> list[int] | None:
    """The published rule on arrays: both bounds included, float64 targets on float32 times, None where it would stop."""
    steps = [*np.diff(times), times[-1] - times[-2]]
    ends = np.float32(np.add(times, steps))
    inside = np.flatnonzero((chunk <= ends) & (ends <= chunk + 1))
    if not len(inside):
        return None
    clip = ends[inside]
    targets = np.arange(np.float64(clip[0]), np.float64(clip[-1]) + 1e-6, 1 / fps)
    picked = [int(inside[np.argmax(target <= clip)]) for target in targets]
    return (picked + picked[-1:] * (len(picked) % 2))[-fps:]


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("fps", [2, 4])
def test_published_equals_its_rule(rate: Fraction | int, fps: int) -> None:
    times = constant(rate, 64)
    chunks = run(PublishedSampler(fps, fps), times)
    for chunk in range(63):
        assert chunks[chunk] == published(times, chunk, fps), chunk


@pytest.mark.parametrize(
    ("rate", "repeats"), [(24, 63), (25, 63), (30, 63), (60, 63), (RATES[0], 0), (RATES[3], 0), (RATES[6], 0)]
)
def test_published_repeats_frames_at_integer_rates(rate: Fraction | int, repeats: int) -> None:
    chunks = run(PublishedSampler(2, 2), constant(rate, 65))
    assert sum(chunks[chunk][0] == chunks[chunk][1] for chunk in range(64)) == repeats


def test_published_goes_on_where_no_frame_ends() -> None:
    chunks = run(PublishedSampler(2, 2), [0.0, 0.2, 0.7, 3.4, 3.6, 4.2])
    assert sorted(chunks) == [0, 1, 2, 3, 4]
    assert chunks[1] == chunks[2] == [1, 1]
