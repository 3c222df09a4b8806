"""Facts: each once, the same for a seed, drawn as they are told, and asked in training as a stream is asked."""

import itertools

import numpy as np
import pytest

from configs.facts import MIDDLE as GRIDS
from configs.facts import architecture
from svlm_jax.data.chunks import IGNORED
from svlm_jax.errors import ConfigError, SourceError
from svlm_jax.models.positions import rope_positions
from svlm_jax.prompt.commentary import SYSTEM
from svlm_jax.prompt.qa import Dialogue
from svlm_jax.prompt.tokenizer import Tokenizer
from svlm_jax.synthetic import Facts
from svlm_jax.synthetic.facts import APART, EVERY, FLAGS, SHOWN
from svlm_jax.synthetic.facts_render import COLOURS, INK, NOISE, PART, SHAPES, SIDE, shape
from svlm_jax.synthetic.facts_samples import FactSamples, FactSettings
from svlm_jax.synthetic.facts_tokenizer import PLAIN, VOCAB_SIZE, write_facts_tokenizer
from svlm_jax.video.source import open_source

SIZE = (SIDE, SIDE)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("facts") / "tokenizer"
    write_facts_tokenizer(folder)
    return Tokenizer(folder / "tokenizer.json")


def samples(tokenizer, seed=3, **changes):
    return FactSamples(tokenizer.encode, architecture(), seed=seed, settings=FactSettings(**changes))


def copies_of(picture, card):
    """The nine copies in a picture, without their rims, int (9, 26, 26, 3)."""
    still = np.roll(picture.astype(int), (-card.down, -card.across), (0, 1))
    parts = still.reshape(SIDE // PART, PART, SIDE // PART, PART, 3).swapaxes(1, 2)
    return parts.reshape(-1, PART, PART, 3)[:, 1:-1, 1:-1]


def test_a_seed_is_a_stream_whatever_is_asked_first():
    one, other = Facts(5), Facts(5)
    late = other.picture(700.25)
    assert [one.fact(i) for i in range(30)] == [other.fact(i) for i in range(30)]
    np.testing.assert_array_equal(one.picture(700.25), late)
    assert (Facts(6).picture(700.25) != late).any() and Facts(6).fact(3) != one.fact(3)


def test_every_fact_is_seen_once_and_no_flag_twice_in_an_hour():
    facts = Facts(1).until(4 * 3600.0)
    assert len(facts) == 4 * 60 and all(abs(fact.end - fact.begin - SHOWN) < 1e-6 for fact in facts)
    assert all(fact.number * EVERY <= fact.begin and fact.end <= (fact.number + 1) * EVERY for fact in facts)
    for index, fact in enumerate(facts):
        hour = facts[index + 1 : index + 1 + APART]
        assert fact.question not in [later.question for later in hour]
    assert {fact.answer for fact in facts} == set(SHAPES)
    assert len({fact.question for fact in facts}) > 0.9 * len(FLAGS)
    assert [fact.number for fact in Facts(1).until(facts[2].end)] == [0, 1, 2]
    assert [fact.number for fact in Facts(1).until(facts[2].end - 0.01)] == [0, 1]


def test_the_picture_shows_what_is_told_and_only_then():
    facts = Facts(2)
    for number in range(20):
        fact = facts.fact(number)
        wanted = np.empty((PART - 2, PART - 2, 3), int)
        wanted[: PART // 2 - 1], wanted[PART // 2 - 1 :] = COLOURS[fact.card.upper], COLOURS[fact.card.lower]
        wanted[shape(fact.answer)] = INK
        for second in (fact.begin, fact.begin + 3, fact.end - 0.01):
            assert np.abs(copies_of(facts.picture(second), fact.card) - wanted).max() <= NOISE
        for second in (fact.begin - 0.1, fact.end):
            assert np.abs(copies_of(facts.picture(second), fact.card) - wanted).mean() > 30


def test_shapes_are_told_apart_and_backgrounds_move():
    for one, other in itertools.combinations(SHAPES, 2):
        assert (shape(one) != shape(other)).mean() > 0.15
    facts = Facts(4)
    empty = [second for second in np.arange(0, 300, 10.0) if facts.picture(second) is not None]
    pictures = np.stack([facts.picture(second) for second in empty]).astype(int)
    assert np.abs(pictures[1:] - pictures[:-1]).mean() > NOISE and pictures[0].std() > 10


def test_as_a_source_it_is_the_stream():
    with open_source("synthetic:facts?seed=3&minutes=0.1&every=10", size=(SIDE, SIDE)) as source:
        info, chunks = source.info, list(source)
    assert (info.kind, info.width, info.height, info.fps, info.duration) == ("synthetic", SIDE, SIDE, 2.0, 6.0)
    facts = Facts(3, every=10)
    for chunk in chunks:
        for i, frame in enumerate(chunk.frames):
            np.testing.assert_array_equal(frame, facts.picture(chunk.start + i / 2).transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("synthetic:facts?scale=2", "has no parameter 'scale'"),
        ("synthetic:facts?every=3", "a fact every 3.0 s, expected at least 6"),
        ("synthetic:facts?seed=-1", "the seed of facts is -1"),
        ("synthetic:facts?fps=0", "expected 1 or more"),
    ],
)
def test_specs_that_are_not_understood_are_named(spec, sentence):
    with pytest.raises(SourceError, match=sentence):
        open_source(spec)


# ------------------------------------------------------------------------------------------------ training samples


def test_words_are_one_token(tokenizer):
    assert len(tokenizer) == VOCAB_SIZE
    assert all(len(tokenizer.encode(text)) == 1 for text in PLAIN)
    fact = Facts(1).fact(0)
    assert len(tokenizer.encode(fact.question)) == 3 and len(tokenizer.encode(fact.answer)) == 1


def test_training_is_inference(tokenizer):
    """A clip's first question is what a stream feeds; the others are follow-ups; every answer is learned, nothing else."""
    made = samples(tokenizer, spread=0.0, early=False)
    model = architecture()
    dialogue = Dialogue(model, tokenizer.encode, SYSTEM)
    for number in range(8):
        sample = made.load(number, SIZE)
        facts, asked = made._facts(number)
        pads = [model.video_token_id] * (GRIDS * 9)
        tokens = dialogue.prefix() + pads + dialogue.turn(asked[0].question, None, None).token
        assert sample.tokens[: len(tokens)].tolist() == tokens
        assert made.length(number, SIZE) == (len(sample.tokens), GRIDS) and sample.frames.shape == (GRIDS, 2, 3, SIDE, SIDE)
        learned = sample.labels[sample.labels != IGNORED]
        assert tokenizer.decode(learned).split("<|im_end|>")[:-1] == [fact.answer for fact in asked]
        places = sample.labels != IGNORED
        np.testing.assert_array_equal(sample.labels[places], sample.tokens[places])
        grids = [(GRIDS, 6, 6)]
        wanted = rope_positions(sample.tokens, model, video_grids=grids, second_per_grid=[4.0])
        np.testing.assert_array_equal(sample.positions, wanted)
        np.testing.assert_array_equal(sample.frames[5, 1], facts.picture(22.0).transpose(2, 0, 1))


def test_answers_are_learned_as_soon_as_the_flag_is_named(tokenizer):
    plain, early = (samples(tokenizer, early=early).load(2, SIZE) for early in (False, True))
    np.testing.assert_array_equal(plain.tokens, early.tokens)
    more = (early.labels != IGNORED) & (plain.labels == IGNORED)
    assert (early.labels[~more] == plain.labels[~more]).all()
    asked = samples(tokenizer)._facts(2)[1]
    stands = [word for _ in asked for word in ("flag?", "<|im_end|>")]
    wanted = [word for fact in asked for word in (fact.answer, fact.answer)]
    assert [tokenizer.decode([token]).strip() for token in early.tokens[more]] == stands
    assert [tokenizer.decode([token]).strip() for token in early.labels[more]] == wanted


def test_spread_clips_have_the_distances_of_long_streams(tokenizer):
    near, far = (samples(tokenizer, spread=share) for share in (0.0, 1.0))
    spans = []
    for number in range(30):
        a, b = near.load(number, SIZE), far.load(number, SIZE)
        np.testing.assert_array_equal(a.tokens, b.tokens)
        np.testing.assert_array_equal(a.frames, b.frames)
        video = a.tokens == architecture().video_token_id
        time = b.positions[0, video][::9]
        assert (np.diff(time) > 0).all() and (np.diff(b.positions[0, ~video]) > 0).all()
        assert b.positions[:, ~video][:, -1].min() > time.max()
        np.testing.assert_array_equal(a.positions[1:, video], b.positions[1:, video])
        spans.append(time.max() - time.min())
    assert max(spans) > 600 and min(spans) < 60


def test_numbers_are_clips_always_the_same_and_none_twice(tokenizer):
    one, again = samples(tokenizer), samples(tokenizer)
    np.testing.assert_array_equal(one.load(4, SIZE).frames, again.load(4, SIZE).frames)
    assert len({one.load(number, SIZE).frames.tobytes() for number in range(5)}) == 5
    assert one.fingerprint() == again.fingerprint() != samples(tokenizer, seed=4).fingerprint()
    counts = {len(one._facts(number)[1]) for number in range(60)}
    assert {1, 5} <= counts <= set(range(1, 6))


def test_settings_that_cannot_work_are_named():
    for field, value in (("frames", 1), ("spread", 2.0), ("sparse", 3.0), ("fps", 4.0)):
        with pytest.raises(ConfigError, match=f"{field}="):
            FactSettings(**{field: value})
