"""Which streams run next: one thread that owns the device, ticks over the chunks that are due, and fits questions in between.

loop   commands of other threads (open, change, snapshot, close)
       a tick: up to N due chunks, earliest deadline first, as one program; words leave after each slice of tokens
       a piece of an answer, which so waits for one tick at most, and delays the next by one slice at most
       nothing due, nothing asked: a piece of background work; else sleep
"""

import collections
import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from svlm_jax.errors import RequestError, SvlmError
from svlm_jax.serving.answers import Answers
from svlm_jax.serving.executor import Batch, Executor, Job
from svlm_jax.serving.limits import Limits
from svlm_jax.serving.metrics import Metrics
from svlm_jax.serving.replies import SLICE, Reply, deliver
from svlm_jax.serving.stream import LiveStream, StreamOptions

logger = logging.getLogger(__name__)
T = TypeVar("T")


class Scheduler:
    """See the module.

    Args:
      defaults: options of a stream that asks for none.
      clock: seconds; deadlines are kept on it.
    """

    def __init__(
        self,
        executor: Executor,
        *,
        defaults: StreamOptions,
        limits: Limits,
        metrics: Metrics,
        answer_tokens: int = 64,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.executor, self.defaults, self.limits, self.metrics = executor, defaults, limits, metrics
        self._answer_tokens, self._clock = answer_tokens, clock
        self._streams: list[LiveStream] = []
        self._answers = Answers(executor, metrics, clock)
        self._work: collections.deque[tuple[Iterator[Any], Callable[[Any, Exception | None], None]]] = collections.deque()
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._wake = threading.Event()
        self._ending = False
        self.ready = False
        self._numbers = 0
        self._weighed = -math.inf
        self._thread = threading.Thread(target=self._run, name="svlm-scheduler", daemon=True)

    # ------------------------------------------------------------------------------------------- for other threads

    def start(self) -> None:
        self._thread.start()
        self.ready = True

    def stop(self) -> None:
        """Ends the thread after what is under way."""
        self.ready = False
        self._ending = True
        self._wake.set()
        self._thread.join()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def open(self, options: StreamOptions, *, id: str | None = None) -> LiveStream:
        """A new stream on a free lane; RequestError when there is none."""
        return self._call(lambda: self._open(options, id))

    def close(self, stream: LiveStream, reason: str) -> None:
        """Frees the stream's lane and tells its subscribers why."""
        self._call(lambda: self._close(stream, reason))

    def change(self, stream: LiveStream, options: StreamOptions) -> None:
        """New options from the next chunk on; nothing is compiled."""
        self._call(lambda: self._change(stream, options))

    def snapshot(self, stream: LiveStream) -> dict[str, Any]:
        """The stream as a value on the host, between two of its chunks."""
        return self._call(lambda: self._snapshot(stream))

    def restore(self, id: str, value: Mapping[str, Any]) -> LiveStream:
        """A stream from a value, on a free lane."""
        return self._call(lambda: self._restore(id, value))

    def submit(self, work: Callable[[Any], Iterator[Any]], settle: Callable[[Any, Exception | None], None]) -> None:
        """Background work on the device: `work(vlm)` yields between two pieces, and its result last."""
        self._work.append((work(self.executor.vlm), settle))
        self._wake.set()

    def answer_cap(self, wanted: int | None) -> int:
        """Tokens of an answer: as asked for, at most what the server decodes."""
        return min(wanted or self._answer_tokens, self._answer_tokens) if wanted is None or wanted > 0 else self._answer_tokens

    @property
    def capacity(self) -> int:
        """Streams that the device carries in real time."""
        return self.executor.capacity

    def about(self) -> dict[str, Any]:
        """What a client must know of the pictures that the model sees."""
        return self.executor.about()

    def observe(self, metrics: Metrics) -> None:
        """Writes the gauges; called now and then from another thread."""
        metrics.waiting.set(sum(len(stream.waiting) for stream in list(self._streams)))
        metrics.lanes.labels("used").set(self.executor.used)
        metrics.lanes.labels("free").set(self.executor.lanes - self.executor.used)
        held: dict[str, int] = {}
        most = 0
        for stream in list(self._streams):
            for kind, (used, limit) in stream.usage.items():
                held[kind] = held.get(kind, 0) + used
                most += limit
        for kind, used in held.items():
            metrics.tokens_held.labels(kind).set(used)
        metrics.cache_usage.set(sum(held.values()) / most if most else 0.0)

    def _call(self, command: Callable[[], T]) -> T:
        """Runs a command on the scheduler's thread and waits for its result."""
        done: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

        def run() -> None:
            try:
                done.put((command(), None))
            except BaseException as error:
                done.put((None, error))

        if threading.current_thread() is self._thread or not self._thread.is_alive():
            return command()
        self._commands.put(run)
        self._wake.set()
        result, error = done.get()
        if error is not None:
            raise error
        return result  # type: ignore[return-value]

    # ------------------------------------------------------------------------------------------- the loop

    def _run(self) -> None:
        while not self._ending:
            self._wake.clear()
            self._obey()
            due = self._due()
            if due:
                self._tick(due)
            if self._answers:
                self._answers.advance()
            elif not due and self._work:
                self._advance_work()
            elif not due:
                self._wake.wait(0.5)
            self._weigh()
        self._obey()

    def _weigh(self) -> None:
        """Takes down the memory of the device once a second, between two ticks: within them it holds workspaces, too."""
        now = self._clock()
        if not self._answers and now >= self._weighed + 1:
            self._weighed = now
            self.metrics.device_bytes.set(self.executor.device_bytes())

    def _obey(self) -> None:
        while True:
            try:
                self._commands.get_nowait()()
            except queue.Empty:
                return

    def _due(self) -> list[LiveStream]:
        """Streams with a chunk that waits, earliest deadline first, as many as one program takes."""
        waiting = [(deadline, stream) for stream in self._streams if (deadline := stream.waiting.deadline) is not None]
        waiting.sort(key=lambda item: item[0])
        return [stream for _, stream in waiting[: self.executor.ladder[-1]]]

    def _tick(self, due: list[LiveStream]) -> None:
        began = self._clock()
        replies = []
        for row, stream in enumerate(due):
            with stream.lock:
                chunk, deadline = stream.waiting.get()
                questions = [stream.questions.popleft() for _ in range(min(len(stream.questions), self.executor.spare))]
            for i, question in enumerate(questions):
                if not self._answers.fork(stream, question, chunk):
                    stream.questions.extendleft(reversed(questions[i:]))  # with the next chunk
                    break
            job = Job(stream.lane, chunk, stream.options, stream.chunks)  # type: ignore[arg-type]
            replies.append(Reply(stream, job, self._name("cap"), began, deadline, row=row))
        try:
            self._run_tick(replies)
        except Exception as error:  # of the device: the streams of this tick cannot go on, the others can
            logger.exception("a tick failed")
            for reply in replies:
                self._fail(reply.stream, error)
            return
        took = self._clock() - began
        self.metrics.tick.observe(took)
        self.executor.took(len(replies), took)

    def _run_tick(self, replies: list[Reply]) -> None:
        """Decodes the captions of a tick in slices. Each is told when it ends, whatever the others have still to say."""
        batch = self.executor.begin([reply.job for reply in replies])
        waiting = list(replies)
        while True:
            deliver(self.executor, batch, waiting, self._clock)
            speaking = self.executor.speaking(batch)
            for reply in [reply for reply in waiting if reply.row not in speaking]:
                waiting.remove(reply)
                self._end(batch, reply)
            if not waiting:
                return
            self.executor.extend(batch, SLICE)

    def _end(self, batch: Batch, reply: Reply) -> None:
        self.executor.finish(batch, reply.row)
        if (problem := batch.errors[reply.row]) is not None:
            self._fail(reply.stream, problem)
            return
        deliver(self.executor, batch, [reply], self._clock, whole=True)
        self._captioned(reply, batch, self._clock())

    def _captioned(self, reply: Reply, batch: Batch, now: float) -> None:
        stream, chunk, row = reply.stream, reply.job.chunk, reply.row
        arrived = reply.due - self.executor.chunk_seconds
        missed = now > reply.due
        stream.misses += missed
        stream.chunks += 1
        stream.position = chunk.end
        stream.usage = self.executor.usage(batch, row)
        stream.remember(chunk)
        count = len(batch.tokens[row])
        metrics = self.metrics
        metrics.captions.inc()
        metrics.generated.inc(count)
        metrics.misses.inc(missed)
        metrics.lag.observe(max(now - arrived, 0.0))
        if reply.first is not None:
            metrics.first_word.observe(max(reply.first - arrived, 0.0))
            metrics.computing.observe(reply.first - reply.began)
            metrics.per_token.observe((now - reply.began) / max(count, 1))
        else:  # silence is an answer, too: clients hear of it
            stream.emit("caption.start", id=reply.id, start=chunk.start, end=chunk.end)
        stream.emit(
            "caption",
            id=reply.id,
            start=chunk.start,
            end=chunk.end,
            text=self.executor.text(batch, row),
            tokens=count,
            lag=round(max(now - arrived, 0.0), 4),
            first_word_ms=None if reply.first is None else round(1e3 * (reply.first - arrived), 2),
            tokens_per_s=round(count / max(now - reply.began, 1e-6), 1),
            missed=bool(missed),
            misses=stream.misses,
            dropped=stream.waiting.dropped,
            usage=stream.usage,
        )

    def _advance_work(self) -> None:
        work, settle = self._work.popleft()
        try:
            result = next(work, None)
        except Exception as error:
            settle(None, error)
            if not isinstance(error, SvlmError):
                logger.exception("background work failed")
            return
        if result is None:
            self._work.append((work, settle))
        else:
            settle(result, None)

    # ------------------------------------------------------------------------------------------- commands

    def _open(self, options: StreamOptions, id: str | None) -> LiveStream:
        lane = self.executor.open(options)
        stream = self._stream(options, id, 0.0)
        stream.lane = lane
        self._streams.append(stream)
        return stream

    def _stream(self, options: StreamOptions, id: str | None, begin: float) -> LiveStream:
        return LiveStream(options, self.executor.assembler(begin), self.limits, wake=self._wake.set, id=id)

    def _close(self, stream: LiveStream, reason: str) -> None:
        stream.closed = True
        if stream in self._streams:
            self._streams.remove(stream)
        self._answers.drop(stream)
        if stream.lane is not None:
            self.executor.release(stream.lane)
            stream.lane = None
            stream.emit("closed", reason=reason)

    def _change(self, stream: LiveStream, options: StreamOptions) -> None:
        if stream.lane is None:
            raise RequestError("closed", "the stream is closed", status=410)
        self.executor.change(stream.lane, stream.options, options)
        stream.options = options

    def _snapshot(self, stream: LiveStream) -> dict[str, Any]:
        if stream.lane is None:
            raise RequestError("closed", "the stream is closed", status=410)
        return {
            "state": self.executor.extract(stream.lane),
            "options": stream.options,
            "position": stream.position,
            "chunks": stream.chunks,
            "saved_at": time.time(),
        }

    def _restore(self, id: str, value: Mapping[str, Any]) -> LiveStream:
        options: StreamOptions = value["options"]
        lane = self.executor.insert(value["state"], options)
        self.executor.resume(lane, chunks=value["chunks"])
        stream = self._stream(options, id, value["position"])
        stream.lane, stream.position, stream.chunks = lane, value["position"], value["chunks"]
        self._streams.append(stream)
        return stream

    def _fail(self, stream: LiveStream, error: Exception) -> None:
        """One stream cannot go on; the others do."""
        self.metrics.failed.inc()
        stream.emit("error", message=str(error))
        self._close(stream, "failed")

    def _name(self, prefix: str) -> str:
        self._numbers += 1
        return f"resp_{prefix}{self._numbers:x}"
