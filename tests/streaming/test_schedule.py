"""Questions with times: read, ordered, and asked when the stream gets there."""

import json

import numpy as np
import pytest

from svlm_jax.errors import StreamError
from svlm_jax.prompt.qa import Answer
from svlm_jax.streaming.schedule import Schedule, Timed, clock, spans, timed
from svlm_jax.video.chunk import Chunk, split


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Who scored?", Timed("Who scored?", None)),
        ("00:42 Who scored?", Timed("Who scored?", 42.0)),
        ("1:02:03.5 And now?", Timed("And now?", 3723.5)),
        ("120:00 Still 0:0?", Timed("Still 0:0?", 7200.0)),
        ("4:2 What is the score?", Timed("4:2 What is the score?", None)),
        ("00:42", Timed("00:42", None)),
    ],
)
def test_a_question_may_begin_with_a_time(text, expected):
    assert timed(text) == expected


def test_times_are_told_as_clocks_and_stretches():
    assert [clock(s) for s in (0, 61.9, 3723)] == ["0:00", "1:01", "1:02:03"]
    assert spans([0.0, 2.0, 8.0, 10.0, 12.0, 20.0], 2.0) == ((0.0, 4.0), (8.0, 14.0), (20.0, 22.0))


class Stub:
    """Stands for a `QASession`: says which frames it has seen when it is asked."""

    def __init__(self):
        self.position, self.seen = 0.0, []

    def feed(self, chunk):
        assert len(chunk.frames) and chunk.start == self.position
        self.position = chunk.end
        self.seen += chunk.frames.reshape(-1).tolist()

    def ask(self, question, *, choices=None):
        return Answer(question, f"{self.seen}", (), self.position, (), None, choices, (), 0.0, 0.0, 0.0)


def watched(questions, *, chunks=3):
    """What a stream of 4 s a chunk tells, whose frames stand at 0, 1, 2 ... s and show their second."""
    told = []
    schedule = Schedule(Stub(), [timed(question) for question in questions], told.append, ["red"])
    for i in range(chunks):
        schedule.feed(Chunk(np.arange(4 * i, 4 * i + 4).reshape(4, 1, 1, 1), 4.0 * i, 4.0 * i + 4))
    return schedule, told


def seen(answer):
    return answer.question, answer.at, len(json.loads(answer.text))


def test_a_question_comes_after_the_frames_before_its_time_and_before_all_others():
    schedule, told = watched(["Who won?", "0:09 Inside?", "0:05.5 Between?", "0:04 At the edge?", "0:05.5 Again?"])
    assert [seen(answer) for answer in told] == [
        ("At the edge?", 4.0, 4),
        ("Between?", 5.5, 6),
        ("Again?", 5.5, 6),
        ("Inside?", 9.0, 9),
    ]
    assert all(json.loads(answer.text) == sorted(json.loads(answer.text)) and answer.scores == ["red"] for answer in told)
    schedule.finish()
    schedule.finish()
    assert [seen(answer) for answer in told[4:]] == [("Who won?", 12.0, 12)]


def test_a_time_that_the_stream_never_reached_is_said_after_the_answers():
    schedule, told = watched(["0:42 Who scored?", "Who won?"])
    with pytest.raises(StreamError, match="the stream ended at 0:12: expected it to reach 0:42, the time of 'Who scored"):
        schedule.finish()
    assert [answer.question for answer in told] == ["Who won?"]


@pytest.mark.parametrize(("second", "first"), [(3.0, 0), (4.0, 0), (4.1, 1), (5.0, 1), (7.9, 4), (8.0, 4), (9.0, 4)])
def test_a_chunk_is_split_between_frames(second, first):
    whole = Chunk(np.arange(4).reshape(4, 1, 1, 1), 4.0, 8.0)
    before, after = split(whole, second)
    assert before.frames.reshape(-1).tolist() == list(range(first)) and len(after.frames) == 4 - first
    assert (before.start, before.end, after.start, after.end) == (4.0, 4.0 + first, 4.0 + first, 8.0)
    assert [len(part.frames) for part in split(split(whole, 4.0)[0], second)] == [0, 0]


def test_a_question_that_is_typed_with_a_time_is_asked_then():
    schedule, told = watched([], chunks=1)
    assert schedule.add("0:06 Who?", 12.0) == 6.0 and told == []
    assert schedule.add("Now?", 12.0) is None
    schedule.feed(Chunk(np.arange(4, 8).reshape(4, 1, 1, 1), 4.0, 8.0))
    assert [seen(answer) for answer in told] == [("Now?", 4.0, 4), ("Who?", 6.0, 6)]
    for text, sentence in (("0:07 Late?", "0:07 has passed"), ("0:30 Never?", "the stream ends at 0:12, before 0:30")):
        with pytest.raises(StreamError, match=sentence):
            schedule.add(text, 12.0)
