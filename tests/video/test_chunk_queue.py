"""The hand-over of chunks: bounded, paced, and what it does when the session is late."""

import threading
import time

import numpy as np
import pytest

from svlm_jax.errors import SourceError
from svlm_jax.video.chunk import Chunk, merge
from svlm_jax.video.chunk_queue import MERGED_PARTS, ChunkQueue


class Clock:
    """Wall time that moves only when told to."""

    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


def chunk(second: int, size: int = 28) -> Chunk:
    frames = np.stack([np.full((3, size, size), 2 * second + i, np.uint8) for i in range(2)])
    return Chunk(frames, second, second + 1, read_ms=5.0)


def shown(got: Chunk | None) -> tuple[float, float, float, float, list[int]]:
    assert got is not None
    return got.start, got.end, got.lag, got.dropped, got.frames[:, 0, 0, 0].tolist()


def late(behind: str, seconds: range, buffer: int = 2) -> tuple[ChunkQueue, Clock]:
    """A chunk_queue whose session took chunk 0 on time and then nothing until `seconds.stop` s, while the decoder kept up."""
    clock = Clock()
    chunk_queue = ChunkQueue(buffer=buffer, seconds=1.0, behind=behind, clock=clock)
    chunk_queue.begin(clock.time)
    chunk_queue.put(chunk(0))
    clock.time += 1.0
    assert shown(chunk_queue.get()) == (0, 1, 0, 0, [0, 1])
    for second in seconds:
        clock.time = 100.0 + second + 1
        assert chunk_queue.put(chunk(second))
    return chunk_queue, clock


@pytest.mark.parametrize("buffer", [1, 2, 5])
def test_drop_skips_to_the_newest(buffer: int) -> None:
    chunk_queue, clock = late("drop", range(1, 9), buffer)
    assert len(chunk_queue) <= buffer
    clock.time += 0.25
    assert shown(chunk_queue.get()) == (8, 9, 0.25, 7, [16, 17])
    clock.time += 0.75
    chunk_queue.put(chunk(9))
    assert shown(chunk_queue.get()) == (9, 10, 0, 0, [18, 19])


def test_merge_spreads_one_chunk_over_the_skipped_span() -> None:
    chunk_queue, _ = late("merge", range(1, 9))
    assert shown(chunk_queue.get()) == (1, 9, 0, 7, [2, 10])


def test_merge_holds_a_bounded_number_of_chunks() -> None:
    chunk_queue, _ = late("merge", range(1, 100))
    assert len(chunk_queue) <= MERGED_PARTS
    start, end, _, dropped, frames = shown(chunk_queue.get())
    assert (start, end, dropped, frames[0]) == (1, 100, 98, 2)
    assert 80 <= frames[1] <= 120


def test_merge_leaves_out_frames_of_another_size() -> None:
    merged = merge([chunk(0, 56), chunk(1), chunk(2)], 1.0)
    assert merged.frames.shape == (2, 3, 28, 28)
    assert shown(merged) == (0, 3, 0, 2, [2, 3])


def test_wait_never_drops_and_tells_the_lag() -> None:
    clock = Clock()
    chunk_queue = ChunkQueue(buffer=2, seconds=1.0, behind="wait", clock=clock)
    chunk_queue.begin(clock.time)
    decoder = threading.Thread(target=lambda: [chunk_queue.put(chunk(second)) for second in range(6)])
    decoder.start()
    lags = []
    for second in range(6):
        clock.time += 3.0
        got = chunk_queue.get()
        assert got is not None and got.start == second and got.dropped == 0
        lags.append(got.lag)
    decoder.join()
    assert lags == [2, 4, 6, 8, 10, 12]


def test_without_a_clock_nothing_is_late() -> None:
    chunk_queue = ChunkQueue(buffer=2, seconds=1.0, behind="drop")
    decoder = threading.Thread(target=lambda: [chunk_queue.put(chunk(second)) for second in range(50)] and chunk_queue.finish())
    decoder.start()
    time.sleep(0.05)
    assert len(chunk_queue) <= 3
    starts = []
    while (got := chunk_queue.get()) is not None:
        assert got.lag == got.dropped == 0
        starts.append(got.start)
    assert starts == list(range(50))
    decoder.join()


def test_what_waited_before_the_first_get_is_no_loss() -> None:
    clock = Clock()
    chunk_queue = ChunkQueue(buffer=2, seconds=1.0, behind="merge", clock=clock)
    chunk_queue.begin(clock.time)
    for second in range(30):
        clock.time += 1.0
        chunk_queue.put(chunk(second))
    assert shown(chunk_queue.get()) == (29, 30, 0, 0, [58, 59])


def test_a_file_in_real_time_begins_with_the_first_get() -> None:
    chunk_queue = ChunkQueue(buffer=2, seconds=0.05, behind="drop", clock=time.monotonic)
    chunk_queue.put(Chunk(np.zeros((2, 3, 28, 28), np.uint8), 7.0, 7.05))
    time.sleep(0.1)
    begin = time.monotonic()
    got = chunk_queue.get()
    assert time.monotonic() - begin >= 0.045
    assert got is not None and got.dropped == 0


def test_errors_come_after_the_last_chunk_and_once() -> None:
    chunk_queue = ChunkQueue(buffer=2, seconds=1.0)
    chunk_queue.put(chunk(0))
    chunk_queue.finish(SourceError("gone"))
    assert chunk_queue.get() is not None
    with pytest.raises(SourceError, match="gone"):
        chunk_queue.get()
    assert chunk_queue.get() is None


def test_closing_frees_a_waiting_decoder() -> None:
    chunk_queue = ChunkQueue(buffer=1, seconds=1.0)
    results = []
    decoder = threading.Thread(target=lambda: results.extend(chunk_queue.put(chunk(second)) for second in range(3)))
    decoder.start()
    time.sleep(0.05)
    chunk_queue.close()
    decoder.join(5)
    assert not decoder.is_alive()
    assert results == [True, False, False]
    assert chunk_queue.wait_closed(60)
