"""Samples: what is learned, and that it is what a stream would feed the model."""

import dataclasses

import numpy as np
import pytest

from svlm_jax.cache.ring import Role
from svlm_jax.checkpoint.random import random_config
from svlm_jax.data.annotations import Annotation, Question, Word
from svlm_jax.data.chunks import (
    IGNORED,
    Bucket,
    ChunkBuilder,
    ChunkSettings,
    Turn,
    blank_sample,
    pad_sample,
    stack,
    turns,
    wanted,
)
from svlm_jax.errors import ConfigError, DataError
from svlm_jax.models.positions import rope_positions
from svlm_jax.prompt.commentary import MARKER, PromptBuilder
from svlm_jax.prompt.tokenizer import Tokenizer
from tests.checkpoints import tiny

MODEL = random_config("qwen2_5_vl")
SIZE = (28, 56)
WORDS = (Word(12.1, 12.5, " red "), Word(12.6, 13.0, "goal"), Word(12.9, 13.1, "now"), Word(14.5, 15.2, "late"))
CLIP = Annotation("a.mp4", 12.0, 15.0, WORDS, previous="It began. " * 4)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(tiny() / "tokenizer.json")


def frames(count=3, size=SIZE):
    return np.arange(count * 2 * 3 * size[0] * size[1], dtype=np.uint32).astype(np.uint8).reshape(count, 2, 3, *size)


def test_a_word_is_said_once_in_the_second_in_which_it_ends():
    assert [turn.words for turn in turns(CLIP)] == [" red goal", " now", ""]  # "late" ends behind the clip
    assert [(turn.start, turn.end) for turn in turns(CLIP)] == [(12, 13), (13, 14), (14, 15)]


@pytest.mark.parametrize(("end", "count"), [(12.4, 1), (13.9, 1), (14.0, 2), (36.0, 24)])
def test_turns_are_whole_seconds(end, count):
    assert len(turns(dataclasses.replace(CLIP, end=end))) == count


def test_a_question_comes_with_the_second_in_which_it_is_asked_and_its_answer_before_the_words():
    asked = dataclasses.replace(CLIP, questions=(Question("qa", 13.0, "Who scored?", "Red did."),))
    first, second, third = turns(asked)
    assert (first.query, second.query, second.words, third.query) == ("", "Who scored?", " Red did. now", "")
    published = turns(asked, ChunkSettings(published=True))
    assert [turn.words for turn in published] == ["\n red goal", "Red did.\n now", "\n"]


@pytest.mark.parametrize(("sink", "tail", "query"), [(512, 512, None), (5, 8, None), (512, 512, "Speak.")])
def test_a_sample_is_what_a_stream_would_be_fed(tokenizer, sink, tail, query):
    encode = tokenizer.encode
    settings = ChunkSettings(sink=sink, tail=tail, query=query)
    sample = ChunkBuilder(encode, MODEL, settings)(CLIP, frames())
    prompt = PromptBuilder(MODEL, encode, max_query=20)
    grid = MODEL.vision.clip_grid(settings.frames, *SIZE, settings.fps)
    assert (grid.t, grid.h, grid.w, grid.time_step) == (1, 1, 2, 2.0)
    said = [" red goal ...", " now ...", " ..."]
    parts = [prompt.opening(CLIP.previous, keep=(sink, tail))]
    ids = list(parts[0].token)
    labels = [IGNORED] * len(ids)
    for number, text in enumerate(said):
        turn = prompt.turn(12.0 + number, 13.0 + number, grid, query if number == 0 else None)
        newline = encode("\n") if number else []  # the device closes a reply at the head of the next turn
        fed = [*newline, *np.asarray(turn.token)[np.asarray(turn.valid)]]
        reply = encode(text) + encode("<|im_end|>")
        ids += [*fed, *reply]
        labels += [IGNORED] * len(fed) + reply
    assert sample.tokens.tolist() == ids and sample.labels.tolist() == labels
    assert (np.asarray(parts[0].role) == Role.PREV_WORDS).sum() == min(40, sink + tail - 1)
    assert sample.valid.all() and sample.clip_valid.tolist() == [True] * 3 and sample.weight == 1


def test_positions_are_those_of_the_model(tokenizer):
    sample = ChunkBuilder(tokenizer.encode, MODEL)(CLIP, frames())
    expected = rope_positions(sample.tokens, MODEL, video_grids=[(1, 2, 4)] * 3, second_per_grid=[1.0] * 3)
    np.testing.assert_array_equal(sample.positions, expected)
    assert sample.positions.dtype == np.float32 and sample.positions.max() > 0


def test_every_clip_has_its_pads_and_nothing_of_it_is_learned(tokenizer):
    sample = ChunkBuilder(tokenizer.encode, MODEL)(CLIP, frames())
    pads = sample.tokens == MODEL.video_token_id
    assert pads.sum() == 3 * 2 and (sample.labels[pads] == IGNORED).all()
    assert tokenizer.decode(sample.labels[sample.labels != IGNORED]) == (
        " red goal ...<|im_end|> now ...<|im_end|> ...<|im_end|>"
    )


def test_the_published_template_differs_where_it_is_known_to(tokenizer):
    encode = tokenizer.encode
    settings = ChunkSettings(published=True, sink=12, tail=10)
    asked = dataclasses.replace(CLIP, questions=(Question("qa", 13.5, "Who?", "Red."),))
    sample = ChunkBuilder(encode, MODEL, settings)(asked, frames())
    text = tokenizer.decode(sample.tokens)
    clip = "<|vision_start|><|video_pad|><|video_pad|><|vision_end|><|im_end|>\n"
    begin = text.index("<|im_start|>user")
    assert text[begin:] == (
        f"<|im_start|>user\nTime=12.0-13.0s{clip}<|im_start|>assistant\n\n red goal ...<|im_end|>\n"
        f"<|im_start|>user\nTime=13.0-14.0s Who?{clip}<|im_start|>assistant\nRed.\n now ...<|im_end|>\n"
        f"<|im_start|>user\nTime=14.0-15.0s {clip}<|im_start|>assistant\n\n ...<|im_end|>\n"
    )
    history = encode(f"<|im_start|>previous text\n{CLIP.previous}<|im_end|>\n")  # the scaffold counts
    system = encode("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n")
    assert len(history) > 22
    assert sample.tokens.tolist()[: len(system) + 23] == [*system, *history[:12], *history[-10:], *encode("<|im_start|>")]
    learned = [tokenizer.decode([token]) for token in sample.labels[sample.labels != IGNORED]]
    assert "".join(learned).replace("\n", "/") == "/ red goal ...<|im_end|>Red./ now ...<|im_end|>/ ...<|im_end|>"


def test_the_length_is_known_without_pixels(tokenizer):
    for settings in (ChunkSettings(), ChunkSettings(published=True)):
        build = ChunkBuilder(tokenizer.encode, MODEL, settings)
        assert build.length(CLIP, SIZE) == (len(build(CLIP, frames()).tokens), 3)


def test_after_a_mistake_only_the_right_word_is_learned(tokenizer):
    assert wanted([1, 2, 3, 9], [1, 2, 3, 9]) == [1, 2, 3, 9]
    assert wanted([1, 5, 3, 9], [1, 2, 3, 9]) == [1, 2, IGNORED, IGNORED]
    assert wanted([8, 9], [1, 2, 8, 9]) == [1, IGNORED]
    assert wanted([1, 2, 8, 9], [8, 9]) == [8, IGNORED, IGNORED, IGNORED]
    heard = [Turn(0.0, 1.0, " blue goal", truth=" red goal"), Turn(1.0, 2.0, "", truth=" red"), Turn(2.0, 3.0, " red")]
    sample = ChunkBuilder(tokenizer.encode, MODEL).build("", heard, frames())
    assert tokenizer.decode(sample.labels[sample.labels != IGNORED]) == " r r red ...<|im_end|>"
    assert "blue goal ..." in tokenizer.decode(sample.tokens)


def test_a_blind_sample_is_the_sample_without_its_clips(tokenizer):
    build = ChunkBuilder(tokenizer.encode, MODEL)
    spoken = turns(CLIP)
    seen, blind = build.build("so", spoken, frames()), build.build("so", spoken, None, size=SIZE)
    text = seen.tokens != MODEL.video_token_id
    for name in ("tokens", "labels", "valid"):
        np.testing.assert_array_equal(getattr(blind, name), getattr(seen, name)[text])
    np.testing.assert_array_equal(blind.positions, seen.positions[:, text])
    assert blind.frames.shape == (0, 2, 3, *SIZE) and blind.clip_valid.shape == (0,)
    assert build.turns_length("so", spoken, SIZE, blind=True) == len(blind.tokens)
    assert pad_sample(blind, Bucket(999, 0, SIZE)).frames.shape == (0, 2, 3, *SIZE)


def test_what_is_given_is_not_learned(tokenizer):
    spoken = [Turn(0.0, 1.0, " red goal score 2-1", given=len(" red goal score")), Turn(1.0, 2.0, " red out", given=-1)]
    sample = ChunkBuilder(tokenizer.encode, MODEL).build("", spoken, frames(2))
    assert tokenizer.decode(sample.labels[sample.labels != IGNORED]) == " 2-1 ...<|im_end|>"


def test_padding_changes_nothing_and_is_marked(tokenizer):
    sample = ChunkBuilder(tokenizer.encode, MODEL)(CLIP, frames())
    count = len(sample.tokens)
    bucket = Bucket(count + 7, 5, SIZE)
    padded = pad_sample(sample, bucket)
    batch = stack([padded, blank_sample(bucket, 2)])
    assert batch.tokens.shape == (2, count + 7) and batch.positions.shape == (2, 3, count + 7)
    assert batch.frames.shape == (2, 5, 2, 3, *SIZE) and batch.weight.tolist() == [1, 0]
    for name in ("tokens", "labels", "valid"):
        np.testing.assert_array_equal(getattr(batch, name)[0, :count], getattr(sample, name))
    assert not batch.valid[0, count:].any() and (batch.labels[0, count:] == IGNORED).all()
    assert batch.clip_valid.tolist() == [[True] * 3 + [False] * 2, [False] * 5]
    assert not batch.valid[1].any() and (batch.labels[1] == IGNORED).all()
    assert {name: value.dtype for name, value in vars(batch).items()} == {
        "tokens": np.int32,
        "labels": np.int32,
        "positions": np.float32,
        "valid": bool,
        "frames": np.uint8,
        "clip_valid": bool,
        "weight": np.float32,
    }


@pytest.mark.parametrize("bucket", [Bucket(10, 5, SIZE), Bucket(999, 2, SIZE), Bucket(999, 5, (28, 28))])
def test_a_sample_that_does_not_fit_is_an_error(tokenizer, bucket):
    with pytest.raises(DataError, match="does not fit"):
        pad_sample(ChunkBuilder(tokenizer.encode, MODEL)(CLIP, frames()), bucket)


def test_frames_must_match_the_turns(tokenizer):
    build = ChunkBuilder(tokenizer.encode, MODEL)
    with pytest.raises(DataError, match="for 3 turns"):
        build(CLIP, frames(2))
    with pytest.raises(ConfigError, match="multiples of 28"):
        build(CLIP, frames(size=(28, 30)))
    with pytest.raises(ConfigError, match="sink=1"):
        ChunkSettings(sink=1, published=True)
    with pytest.raises(ConfigError, match="fps=0"):
        ChunkSettings(fps=0)


def test_the_marker_ends_every_reply(tokenizer):
    sample = ChunkBuilder(tokenizer.encode, MODEL)(CLIP, frames())
    marker, end = tokenizer.encode(MARKER), tokenizer.encode("<|im_end|>")
    closing = [*marker, *end]
    tokens = sample.labels[sample.labels != IGNORED].tolist()
    assert sum(tokens[i : i + len(closing)] == closing for i in range(len(tokens))) == 3
