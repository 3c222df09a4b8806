"""Questions to a running stream: asked on a fork, in the turn of a chunk, in room that is kept for them."""

import jax
import numpy as np
import pytest

from svlm_jax.engine import commentate as step
from svlm_jax.errors import ConfigError, StreamError
from tests.streaming.streams import SETTINGS, chunk, model, run

QUESTION = "Who has the ball, and what is the score?"
ROOM = 96


def stream(**changes):
    return model().stream(SETTINGS, **{"qa_token_budget": ROOM, "keep_logits": True, **changes})


def first_logits(session, question, clip):
    """Of the first token of the answer."""
    fork, twins = session.fork, []
    session.fork = lambda sampling: twins.append(fork(sampling)) or twins[-1]
    session.ask(question, clip, max_new_tokens=4)
    return np.asarray(twins[0].last.logits[0, 0])


def test_a_question_leaves_no_trace():
    alone, asked = stream(), stream()
    expected = run(alone, 0, 7)
    assert run(asked, 0, 3) == expected[:3]
    before = jax.tree.map(np.asarray, asked.state)
    answer = asked.ask(QUESTION, chunk(3), max_new_tokens=4)
    jax.tree.map(np.testing.assert_array_equal, before, jax.tree.map(np.asarray, asked.state))
    assert 1 <= len(answer.tokens) <= 4
    assert run(asked, 3, 7) == expected[3:]


def test_the_answer_depends_on_question_chunk_and_past():
    """Logits, not words: a random model may say the same to everything."""
    answers = []
    for past, question, seed in ((0, QUESTION, 0), (0, "Who?", 0), (0, QUESTION, 5), (9, QUESTION, 0)):
        session = stream()
        run(session, 0, 2, seed=past)
        answers.append(first_logits(session, question, chunk(2, seed=seed)))
    for other in answers[1:]:
        assert not np.allclose(answers[0], other)


def test_the_same_question_is_answered_the_same_and_greedily():
    first, second = stream(seed=1), stream(seed=1)
    run(first, 0, 2), run(second, 0, 2)
    one = first.ask(QUESTION, chunk(2), max_new_tokens=4)
    assert one.tokens == first.ask(QUESTION, chunk(2), max_new_tokens=4).tokens
    assert one.tokens == second.ask(QUESTION, chunk(2), max_new_tokens=4).tokens


def test_the_first_chunk_can_be_asked_about():
    session = stream()
    assert session.ask(QUESTION, chunk(0), max_new_tokens=4).tokens
    assert run(session, 0, 2) == run(stream(), 0, 2)


@pytest.mark.slow
def test_longer_answers_than_captions_have_room():
    session = stream()
    answer = session.ask("Go on.", chunk(0), max_new_tokens=60)
    assert answer.tokens and sum(used for used, _ in answer.usage.values()) <= session.config.ring.slots


def test_other_questions_of_like_length_compile_nothing():
    session = stream()
    run(session, 0, 1)
    session.ask(QUESTION, chunk(1), max_new_tokens=4)
    before = step.step._cache_size()
    session.ask("Another one, somewhat longer than the one before?", chunk(1), max_new_tokens=4)
    assert step.step._cache_size() == before


@pytest.mark.slow
def test_room_changes_nothing_else():
    assert run(stream(), 0, 5) == run(model().stream(SETTINGS), 0, 5)


def test_questions_that_have_no_room():
    with pytest.raises(
        ConfigError, match=r"a question of \d+ tokens with an answer of up to 4: expected at most qa_token_budget=0"
    ):
        stream(qa_token_budget=0).ask(QUESTION, chunk(0), max_new_tokens=4)
    with pytest.raises(ConfigError, match="expected at most qa_token_budget=96 tokens together"):
        stream().ask("word " * 200, chunk(0), max_new_tokens=4)
    with pytest.raises(ConfigError, match="qa_token_budget=-1: expected 0 or more"):
        stream(qa_token_budget=-1)


def test_nothing_was_said_by_a_stream_that_was_only_asked():
    session = stream()
    session.ask(QUESTION, chunk(0), max_new_tokens=4)
    assert session.chunks == 0
    with pytest.raises(StreamError):
        model().stream(SETTINGS).state  # noqa: B018
