"""Chunks of matches made on the fly."""

import dataclasses

import numpy as np
import pytest

from svlm_jax.checkpoint.random import random_config
from svlm_jax.data.chunks import IGNORED, ChunkBuilder, ChunkSettings
from svlm_jax.errors import ConfigError
from svlm_jax.prompt.tokenizer import Tokenizer
from svlm_jax.synthetic.commentary import VOCABULARY, parse
from svlm_jax.synthetic.samples import MatchSamples, MatchSettings
from tests.checkpoints import tiny

TOKENIZER = Tokenizer(tiny() / "tokenizer.json")
BUILD = ChunkBuilder(TOKENIZER.encode, random_config("qwen2_5_vl"))
SIZE = (84, 112)
TRUE = MatchSettings(swapped=0.0, lost=0.0, misremembered=0.0, hours=0.0, scales=(1,), filmed=0.0)


def samples(seed=5, **changes):
    return MatchSamples(BUILD, seed=seed, settings=dataclasses.replace(TRUE, **changes))


def said(sample):
    """What stands in the replies, one text a second."""
    text = TOKENIZER.decode(sample.tokens).split("<|im_start|>assistant\n")[1:]
    return [reply.split(" ...<|im_end|>")[0].strip() for reply in text]


def learned(sample):
    """What is to be learned, one text a second; cut short after a mistake."""
    begins = np.flatnonzero((sample.labels[1:] != IGNORED) & (sample.labels[:-1] == IGNORED)) + 1
    ends = np.flatnonzero((sample.labels[1:] == IGNORED) & (sample.labels[:-1] != IGNORED)) + 1
    return [TOKENIZER.decode(sample.labels[a:b]) for a, b in zip(begins, [*ends, None], strict=False)]


def test_numbers_are_chunks_always_the_same_and_none_twice():
    one, again = samples(), samples()
    loaded = [one.load(number, SIZE) for number in range(20)]
    for number in (3, 17):
        sample = again.load(number, SIZE)
        for field in dataclasses.fields(sample):
            np.testing.assert_array_equal(getattr(sample, field.name), getattr(loaded[number], field.name))
    assert len({sample.tokens.tobytes() for sample in loaded}) == 20
    assert (samples(seed=6).load(3, SIZE).frames != loaded[3].frames).any()
    assert one.fingerprint() == again.fingerprint() != samples(seed=6).fingerprint()


def test_the_length_is_known_before_loading():
    chunks = samples(swapped=0.3, misremembered=0.5, hours=3.0)
    for number in range(5):
        sample = chunks.load(number, SIZE)
        assert chunks.length(number, chunks.size(number)) == (len(sample.tokens), 24)
        assert sample.frames.shape == (24, 2, 3, *SIZE) and sample.frames.dtype == np.uint8


def test_without_mistakes_all_that_is_said_is_learned_and_true():
    for number in range(4):
        sample = samples().load(number, SIZE)
        assert [text.removesuffix(" ...<|im_end|>").strip() for text in learned(sample)] == said(sample)
        assert set(" ".join(said(sample)).split()) <= set(VOCABULARY)


def test_mistakes_stand_in_the_text_and_the_truth_in_the_labels():
    """The same numbers draw the same chunks, so both sides can be compared."""
    wrong, corrected = 0, 0
    for number in range(6):
        noisy, true = (samples(**rates).load(number, SIZE) for rates in ({"swapped": 0.4, "lost": 0.1}, {}))
        np.testing.assert_array_equal(noisy.frames, true.frames)
        for heard, right, label in zip(said(noisy), said(true), learned(noisy), strict=True):
            wrong += heard != right
            if heard != right:
                assert parse(right).score is None  # lines with a score are never wrong
                corrected += f"{right} ...".startswith(label.strip())
    assert wrong > 10 and corrected == wrong


def test_a_score_that_went_wrong_is_followed():
    changed = 0
    for number in range(12):
        wrong, true = (samples(misremembered=rate).load(number, SIZE) for rate in (1.0, 0.0))
        assert [text.removesuffix(" ...<|im_end|>").strip() for text in learned(wrong)] == said(wrong)
        for heard, right in zip(said(wrong), said(true), strict=True):
            if heard != right:
                changed += 1
                red, blue = (a - b for a, b in zip(parse(heard).score, parse(right).score, strict=True))
                assert sorted((abs(red), abs(blue))) == [0, 1]
    assert changed > 10


def test_pictures_of_other_scales_are_nearly_the_same():
    small, large = (samples(scales=(scale,)).load(1, SIZE).frames.astype(int) for scale in (1, 4))
    assert 0 < np.abs(small - large).mean() < 6


def test_blind_chunks_teach_only_what_must_be_remembered():
    chunks = samples(blind=True, seconds=60)
    for number in range(3):
        sample = chunks.load(number, SIZE)
        assert chunks.length(number, SIZE) == (len(sample.tokens), 0) and sample.frames.shape[0] == 0
        lines = [text for text in said(sample) if "score" in text]
        assert [text.strip() for text in learned(sample)] == [f"{text.split('score ')[1]} ...<|im_end|>" for text in lines]
        assert not (sample.tokens == BUILD.model.video_token_id).any()


def test_blind_chunks_leave_out_seconds_but_not_their_positions():
    """A blind chunk is what a blind one of all seconds is, with some of them missing."""
    rates = {"blind": True, "seconds": 20}
    few, many, seen = (samples(**rates, kept=0.0), samples(**rates, kept=1.0), samples(seconds=20))
    shorter = 0
    for number in range(6):
        part, whole, all_of_it = few.load(number, SIZE), many.load(number, SIZE), seen.load(number, SIZE)
        shorter += len(part.tokens) < len(whole.tokens) < len(all_of_it.tokens)
        places = {tuple(place): token for place, token in zip(all_of_it.positions.T, all_of_it.tokens, strict=True)}
        assert all(places[tuple(place)] == token for place, token in zip(part.positions.T, part.tokens, strict=True))
        assert learned(part) == learned(whole)
    assert shorter == 6


def test_filmed_pictures_are_nearly_the_same():
    drawn, filmed = (samples(scales=(4,), filmed=share).load(1, SIZE).frames.astype(int) for share in (0.0, 1.0))
    assert 0 < np.abs(drawn - filmed).mean() < 6


def test_labels_reach_late_times():
    texts = [TOKENIZER.decode(samples(hours=3.0).load(number, SIZE).tokens) for number in range(12)]
    starts = [float(text.split("Time=")[1].split("-")[0]) for text in texts]
    assert max(starts) > 3600 and min(starts) <= 360


def test_settings_that_cannot_work_are_named():
    with pytest.raises(ConfigError, match="swapped=2"):
        MatchSettings(swapped=2)
    with pytest.raises(ConfigError, match="turns of one second"):
        MatchSamples(ChunkBuilder(TOKENIZER.encode, random_config("qwen2_5_vl"), ChunkSettings(fps=4.0)))
