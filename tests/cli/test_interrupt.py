import os
import signal
import threading
import time

import pytest

from svlm_jax.host.signals import Interrupted, Stoppable, interruptible


def send(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interruptible_raises_at_once(number, code):
    with pytest.raises(Interrupted) as caught, interruptible():
        send(number)
        time.sleep(5)
    assert caught.value.exit_code == code


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with interruptible(), Stoppable(iter([])):
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_work_in_hand_is_finished_before_stopping():
    done = []
    with interruptible(), Stoppable(iter(range(5))) as items:
        for item in items:
            if item == 2:
                send()
                time.sleep(0.01)  # the handler runs in here, and must not raise
            done.append(item)
    assert done == [0, 1, 2]
    assert items.interrupted is not None
    assert items.interrupted.exit_code == 143


def test_waiting_for_an_item_ends_at_once():
    def endless():
        yield 1
        time.sleep(30)

    timer = threading.Timer(0.2, send)
    begin = time.monotonic()
    with interruptible(), Stoppable(endless()) as items:
        timer.start()
        assert list(items) == [1]
    assert time.monotonic() - begin < 5
    assert items.interrupted is not None


def test_a_second_signal_stops_whatever_runs():
    with pytest.raises(Interrupted), interruptible(), Stoppable(iter([1])) as items:
        for _ in items:
            send()
            time.sleep(0.01)
            send()
            time.sleep(5)


def test_without_a_signal_nothing_changes():
    with Stoppable(iter("abc")) as items:
        assert "".join(items) == "abc"
    assert items.interrupted is None
