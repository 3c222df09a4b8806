"""The one loop that tries again."""

import pytest

from svlm_jax.host.retry import Again, Backoff, GaveUp, Retry


def test_backoff_doubles_up_to_a_limit() -> None:
    backoff = Backoff(first=0.5, longest=30, jitter=0.25)
    assert [backoff.delay(failures, 0) for failures in (1, 2, 3, 6, 7, 8, 1000)] == [0.5, 1, 2, 16, 30, 30, 30]
    assert (backoff.delay(1, -1), backoff.delay(1, 1)) == (0.375, 0.625)
    assert all(0.375 <= backoff.delay(1) <= 0.625 for _ in range(100))


def test_it_is_tried_again_until_it_succeeds_or_nothing_is_left() -> None:
    waits: list[float] = []
    told: list[tuple[str, int]] = []
    answers: list[object] = [Again("busy"), Again("asks for time", wait=7.0), "done", Again("a"), Again("b"), Again("c")]

    def attempt() -> object:
        answer = answers.pop(0)
        if isinstance(answer, Again):
            raise answer
        return answer

    backoff = Backoff(first=1, longest=3, jitter=0, attempts=2)
    retry = Retry(backoff, wait=waits.append, on_failure=lambda why, failures, delay: told.append((why, failures)))
    assert retry(attempt) == "done"
    assert waits == [1, 7.0] and told == [("busy", 1), ("asks for time", 2)]
    retry.succeeded()
    with pytest.raises(GaveUp, match="c") as gave_up:
        retry(attempt)
    assert gave_up.value.failures == 3 and not gave_up.value.stopped
    with pytest.raises(GaveUp) as gave_up:
        Retry(backoff, wait=lambda delay: True)(attempt, after=Again("lost"))
    assert gave_up.value.stopped
