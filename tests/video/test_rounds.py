"""Sources side by side: what is there comes together, and one that is slow or gone holds up none of the others."""

import queue
import threading

import numpy as np
import pytest

from svlm_jax.errors import SourceError
from svlm_jax.video.chunk import Chunk
from svlm_jax.video.rounds import Ended, Rounds


class Fed:
    """A source of what a test puts into it."""

    def __init__(self, *items):
        self.items, self.closed, self.asked = queue.SimpleQueue(), threading.Event(), 0
        for item in items:
            self.items.put(item)

    def __next__(self):
        self.asked += 1
        item = self.items.get(timeout=20)
        if item is None:
            raise StopIteration
        if isinstance(item, Exception):
            raise item
        return item

    def close(self):
        self.closed.set()
        self.items.put(None)


def chunk(second, **about):
    return Chunk(np.zeros((2, 3, 28, 28), np.uint8), float(second), second + 1.0, **about)


def starts(round):
    return {name: item.start for name, item in round.items() if isinstance(item, Chunk)}


def test_what_is_there_comes_together_until_all_have_ended():
    long, short = Fed(chunk(0), chunk(1), None), Fed(chunk(5), None)
    with Rounds({"long": long, "short": short}, grace=20) as rounds:
        assert starts(next(rounds)) == {"long": 0.0, "short": 5.0}
        second = next(rounds)
        assert starts(second) == {"long": 1.0} and second["short"] == Ended()
        assert next(rounds) == {"long": Ended()}
        with pytest.raises(StopIteration):
            next(rounds)


def test_a_slow_source_holds_up_no_other():
    quick, slow = Fed(*(chunk(i) for i in range(5))), Fed()
    with Rounds({"quick": quick, "slow": slow}, grace=0.01) as rounds:
        assert [starts(next(rounds)) for _ in range(4)] == [{"quick": float(i)} for i in range(4)]
        slow.items.put(chunk(9))
        seen = {}
        while "slow" not in seen:
            quick.items.put(chunk(5))
            seen = starts(next(rounds))
        assert seen["slow"] == 9.0
    assert quick.closed.is_set() and slow.closed.is_set()


def test_a_source_is_asked_only_for_the_round_that_begins():
    """So a queue that drops what is late decides at the last moment."""
    fed = Fed(*(chunk(i) for i in range(5)))
    with Rounds({"only": fed}) as rounds:
        for i in range(3):
            next(rounds)
            assert fed.asked == i + 1


def test_an_error_is_the_end_of_one_source():
    broken, whole = Fed(SourceError("the cable is cut")), Fed(chunk(0), chunk(1))
    with Rounds({"broken": broken, "whole": whole}, grace=20) as rounds:
        first = next(rounds)
        assert str(first["broken"].error) == "the cable is cut" and starts(first) == {"whole": 0.0}
        assert starts(next(rounds)) == {"whole": 1.0}


def test_a_source_that_is_left_is_closed_and_brings_no_more():
    one, other = Fed(*(chunk(i) for i in range(9))), Fed(*(chunk(i) for i in range(9)), None)
    with Rounds({"one": one, "other": other}, grace=20) as rounds:
        next(rounds)
        rounds.leave("one")
        assert one.closed.is_set()
        assert all(list(round) == ["other"] for round in rounds)


def test_the_lag_counts_the_wait_for_the_others(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("svlm_jax.video.rounds.time.monotonic", lambda: now[0])
    fed = Fed(chunk(0, lag=0.5), chunk(1))
    with Rounds({"only": fed}) as rounds:
        assert next(rounds)["only"].lag == 0.5
        assert next(rounds)["only"].lag == 0.0, "what waits for the session is never late"
