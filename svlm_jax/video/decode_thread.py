"""The decoding thread: frames become chunks of model size, chunks go into the chunk_queue."""

import dataclasses
import time
from collections.abc import Callable, Iterator

import av
import numpy as np

from svlm_jax.errors import SourceError
from svlm_jax.models.resize_rule import ResizeRule
from svlm_jax.video.chunk import Chunk
from svlm_jax.video.chunk_queue import ChunkQueue
from svlm_jax.video.reader import Decoded
from svlm_jax.video.resize import array_pixels, model_pixels, smart_resize
from svlm_jax.video.sampler import Sampler

SAME_ASPECT = 0.02  # relative; what rounding to even sizes makes of one aspect ratio at several resolutions


@dataclasses.dataclass
class ModelSize:
    """The size at which the model sees each chunk of `frames` frames, by its rule.

    The first chunk decides how many vision tokens a chunk may have, as memory is laid out for that many: should the resolution
    change later, a picture that would need more gets the first size if its aspect is the same, else a smaller one.
    """

    frames: int
    rule: ResizeRule
    _first: tuple[tuple[int, int], tuple[int, int]] | None = None  # size of the first source picture, and what it became

    def of(self, source: tuple[int, int]) -> tuple[int, int]:
        """(height, width) for a chunk whose first frame has the size `source`."""
        size = smart_resize(*source, self.rule.for_clip(self.frames))
        if self._first is None:
            self._first = source, size
        (first_height, first_width), first = self._first
        limit = first[0] * first[1]
        if size[0] * size[1] <= limit:
            return size
        if abs(source[0] * first_width / (source[1] * first_height) - 1) < SAME_ASPECT:
            return first
        return smart_resize(*source, self.rule.at_most(limit))


def pump(
    open_frames: Callable[[ChunkQueue], Iterator[Decoded]],
    make_sampler: Callable[[], Sampler],
    model_size: ModelSize,
    chunk_queue: ChunkQueue,
    close: Callable[[], None],
    *,
    start: float,
    seconds: float,
    chunks: int | None,
    restart: Callable[[], float] | None,
) -> None:
    """Reads frames until they end, `chunks` are made, or the queue is closed; what goes wrong goes into the queue.

    A live source whose first chunk was looked at is read on, unseen, until somebody asks for a chunk; `restart` then begins
    its clock anew and returns its reading.
    """
    error: Exception | None = None
    try:
        frames = open_frames(chunk_queue)
        unseen = frames if restart is None else _from_first_request(frames, chunk_queue, restart)
        _pump(unseen, make_sampler, model_size, chunk_queue, start, seconds, chunks)
    except Exception as problem:
        error = problem
    finally:
        close()
        chunk_queue.finish(error)


def _from_first_request(
    frames: Iterator[Decoded], chunk_queue: ChunkQueue, restart: Callable[[], float]
) -> Iterator[Decoded | None]:
    """The frames, without those that pass between a look at the first chunk and the first request; None where they ended."""
    held = False
    for decoded in frames:
        if chunk_queue.held and len(chunk_queue):
            held = True
        elif held:
            held = False
            chunk_queue.restart(restart())
            yield None
        else:
            yield decoded


def _pump(
    frames: Iterator[Decoded | None],
    make_sampler: Callable[[], Sampler],
    model_size: ModelSize,
    chunk_queue: ChunkQueue,
    start: float,
    seconds: float,
    chunks: int | None,
) -> None:
    cost = 0.0
    made = 0
    sampler = make_sampler()

    def deliver(complete: Iterator[tuple[int, list[Decoded]]]) -> bool:
        """Whether to go on."""
        nonlocal cost, made
        for index, picked in complete:
            begin = time.perf_counter()
            pixels = _pixels(picked, model_size)
            spent, cost = cost + time.perf_counter() - begin, 0.0
            at = start + index * seconds
            made = index + 1
            chunk = Chunk(pixels, at, at + seconds, read_ms=spent * 1e3, source_size=picked[0].size)
            if not chunk_queue.put(chunk) or (chunks is not None and made >= chunks):
                return False
        return True

    problem: SourceError | None = None
    end, first = 0.0, True
    try:
        for decoded in frames:
            if chunk_queue.closed:
                return
            if decoded is None:
                sampler, made, cost, first = make_sampler(), 0, 0.0, True
                continue
            if decoded.gap or first:
                sampler.skip_to(decoded.time)
                first = False
            cost += decoded.cost
            end = decoded.time + decoded.duration
            if not deliver(sampler.feed(decoded.time, decoded, decoded.duration)):
                return
    except SourceError as error:
        problem = error
    finally:
        if isinstance(frames, Iterator) and hasattr(frames, "close"):
            frames.close()
    # What could be decoded is delivered before the problem is.
    if not deliver(sampler.finish(end)):
        return
    if problem is not None:
        raise problem
    if not made:
        raise SourceError(f"The video ends at {end:.1f} s; start={start:g} is after that.")


def _pixels(picked: list[Decoded], model_size: ModelSize) -> np.ndarray:
    """uint8 (F, 3, height, width); a frame that stands for several targets is converted once."""
    size = model_size.of(picked[0].size)
    frames = {id(decoded): decoded for decoded in picked}
    pixels = {key: _frame_pixels(decoded.frame, size) for key, decoded in frames.items()}
    return np.stack([pixels[id(decoded)] for decoded in picked])


def _frame_pixels(frame: av.VideoFrame | np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return array_pixels(frame, size) if isinstance(frame, np.ndarray) else model_pixels(frame, size)
