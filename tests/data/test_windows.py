"""Transcripts cut into samples."""

import itertools

import pytest

from svlm_jax.data.annotations import Word
from svlm_jax.data.chunks import ChunkSettings, turns
from svlm_jax.data.windows import Annealing, Overlapped, annealing, history, overlapped
from svlm_jax.errors import ConfigError


def steady(seconds, rate=3, start=0.0):
    """`rate` words a second, evenly."""
    return [Word(start + i / rate, start + (i + 0.9) / rate, f"w{i}") for i in range(int(seconds * rate))]


def test_chunks_overlap_by_half_and_carry_what_was_said_before():
    words = steady(60)
    chunks = list(overlapped("a.mp4", words))
    assert [(chunk.start, chunk.end) for chunk in chunks] == [(0, 24), (12, 36), (24, 48), (36, 60)]
    for chunk in chunks:
        first = int(chunk.start * 3)
        assert [word.text for word in chunk.words] == [f"w{i}" for i in range(first, first + 72)]
        assert chunk.previous == " ".join(f"w{i}" for i in range(first))


def test_turns_of_neighbouring_chunks_agree():
    words = [word for word in steady(60) if int(word.start) % 5]
    by_chunk = [{turn.start: turn.words for turn in turns(chunk, ChunkSettings())} for chunk in overlapped("a", words)]
    for one, other in itertools.pairwise(by_chunk):
        both = one.keys() & other.keys()
        assert len(both) == 12 and all(one[at] == other[at] for at in both)


def test_chunks_with_few_words_are_left_out():
    words = [*steady(24), *steady(36, rate=1, start=24.0)]
    assert [chunk.start for chunk in overlapped("a", words)] == [0, 12]  # 72, 36 + 12, 24, 24 words of 48
    assert len(list(overlapped("a", words, Overlapped(words_per_second=0.0)))) == 4
    assert not list(overlapped("a", [])) and not list(overlapped("a", [], duration=100.0))


def test_a_short_video_is_one_chunk():
    (chunk,) = overlapped("a", steady(10))
    assert (chunk.start, chunk.end, len(chunk.words)) == (0, 10, 30)


def test_annealing_clips_are_dense_and_do_not_overlap():
    words = [*steady(30), *steady(100, start=40.0), *steady(10, start=150.0), *steady(30, rate=1, start=170.0)]
    clips = list(annealing("a", words))
    assert [(clip.start, clip.end) for clip in clips] == [(0, 30), (40, 104), (104, 140)]  # 10 s: short; 170 s: few words
    for clip in clips:
        gaps = [b.start - a.end for a, b in itertools.pairwise(clip.words)]
        assert max(gaps) <= 3 and len(clip.words) >= 2 * (clip.end - clip.start)
        assert clip.start <= clip.words[0].start and clip.words[-1].end <= clip.end
    assert clips[1].previous.split()[-1] == "w89" and sum(len(clip.words) for clip in clips) == 390


def test_annealing_clips_do_not_overlap_where_a_word_lies_across_their_border():
    words = steady(128, start=0.2)
    first, second = annealing("a", words)
    assert any(word.start < first.end < word.end for word in words)
    assert (first.start, first.end, second.start) == (0, 64, 64)
    assert second.end <= 128 and [*first.words, *second.words] == words[: len(first.words) + len(second.words)]


def test_history_keeps_both_ends():
    assert history(steady(4)) == " ".join(f"w{i}" for i in range(12))
    assert history(steady(4), keep=2) == "w0 w1 w10 w11"


def test_rules_that_cannot_work_are_named():
    with pytest.raises(ConfigError, match="expected positive seconds"):
        Overlapped(stride=0)
    with pytest.raises(ConfigError, match="expected 0 < shortest <= longest"):
        Annealing(shortest=70)
