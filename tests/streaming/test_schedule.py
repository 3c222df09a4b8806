"""Questions with times: read, ordered, and asked when the stream gets there."""

import dataclasses

import pytest

from svlm_jax.errors import StreamError
from svlm_jax.streaming.schedule import Schedule, Timed, clock, spans, timed


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


@dataclasses.dataclass
class Stub:
    """Stands for a `Recall`: remembers what it was asked."""

    position: float = 0.0

    def ask(self, question, *, choices=None, at=None):
        return question, at, self.position


def test_each_question_is_asked_once_when_its_time_has_come():
    stub = Stub()
    schedule = Schedule(stub, [timed("Who won?"), timed("0:05 Second?"), timed("0:02 First?")])
    told = []
    for stub.position in (1.0, 2.0, 3.0, 6.0):
        told += schedule.due()
    assert told == [("First?", 2.0, 2.0), ("Second?", 5.0, 6.0)]
    assert list(schedule.rest()) == [("Who won?", None, 6.0)] and list(schedule.rest()) == []


def test_a_time_that_the_stream_never_reached_is_said_after_the_answers():
    stub = Stub(position=30.0)
    rest = Schedule(stub, [timed("0:42 Who scored?"), timed("Who won?")]).rest()
    assert next(rest) == ("Who won?", None, 30.0)
    with pytest.raises(StreamError, match="the stream ended at 0:30: expected it to reach 0:42, the time of 'Who scored"):
        next(rest)
