"""What the protocols talk to: streams by id, with their sources and their snapshots, over one scheduler."""

import logging
import re
import threading
import time
from collections.abc import Mapping
from typing import Any

import jax.monitoring

from svlm_jax.errors import RequestError, SvlmError
from svlm_jax.serving.access import Access
from svlm_jax.serving.limits import Limits
from svlm_jax.serving.metrics import Metrics
from svlm_jax.serving.scheduler import Scheduler
from svlm_jax.serving.snapshots import Snapshots
from svlm_jax.serving.stream import LiveStream, Question, StreamOptions
from svlm_jax.video.source import Source, open_source

logger = logging.getLogger(__name__)

COMPILED = "/jax/core/compile/backend_compile_duration"  # what JAX calls the event
NAME = re.compile(r"[\w.-]{24,128}", re.ASCII)  # a session id that nobody guesses
SWEEP = 1.0  # s between two looks for streams that nobody feeds


class Hub:
    """One server's streams.

    Args:
      model: the name that clients see.
      snapshots: where streams are saved; None = a stream ends with the process.
      snapshot_seconds: between two saves of a stream that runs.
      names_from_clients: whether an unknown session id of `NAME` begins a stream of that name. A proxy that routes by session
        id then keeps a client at one worker from its first connection on.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        *,
        model: str,
        limits: Limits,
        access: Access,
        metrics: Metrics,
        snapshots: Snapshots | None = None,
        snapshot_seconds: float = 10.0,
        names_from_clients: bool = False,
    ) -> None:
        self.scheduler, self.model, self.limits, self.access, self.metrics = scheduler, model, limits, access, metrics
        self.snapshots, self._every, self.names_from_clients = snapshots, snapshot_seconds, names_from_clients
        self.streams: dict[str, LiveStream] = {}
        self._sources: dict[str, Source] = {}
        self._clients: dict[str, int] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        jax.monitoring.register_event_duration_secs_listener(self._compiled)
        self._sweeper = threading.Thread(target=self._sweep, name="svlm-sweep", daemon=True)

    def start(self) -> None:
        self.scheduler.start()
        self._sweeper.start()

    def stop(self) -> None:
        """Drains: no new streams, all of them saved, the device idle."""
        self._stopping.set()
        self._sweeper.join()
        for stream in list(self.streams.values()):
            self.close(stream, reason="the server stops", keep=True)
        self.scheduler.stop()

    def _compiled(self, event: str, duration_secs: float, **_: str | int) -> None:
        if event == COMPILED:
            self.metrics.compilations.inc()

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    # ------------------------------------------------------------------------------------------- streams

    def open(self, options: StreamOptions | None = None, *, id: str | None = None) -> LiveStream:
        """A new stream on a lane of the device; RequestError when the server is full or stops."""
        if self.stopping:
            raise RequestError("stopping", "the server is stopping: expected another one", status=503)
        self._admit()
        stream = self.scheduler.open(options or self.scheduler.defaults, id=id)
        with self._lock:
            self.streams[stream.id] = stream
        self.metrics.streams.set(len(self.streams))
        return stream

    def _admit(self) -> None:
        """Refuses a stream that would make others late."""
        most = self.scheduler.capacity if self.limits.streams is None else self.limits.streams
        if len(self.streams) >= most:
            self.metrics.refused.inc()
            sentence = f"{len(self.streams)} streams run, and this server carries {most} in real time: expected a free place"
            raise RequestError("session_capacity_exceeded", f"{sentence}, try again later", status=503)

    def connect(self, session_id: str | None) -> tuple[LiveStream, Mapping[str, Any] | None]:
        """The stream of a client that comes: a new one, the one it left, or the newest snapshot of it.

        Returns also what a client that came back has lost, None for a new stream.
        """
        resumed: Mapping[str, Any] | None = None
        if session_id is None:
            stream = self.open()
        elif session_id in self.streams:
            stream = self.streams[session_id]
            resumed = {"position": stream.position, "lost_seconds": 0.0}
        elif (value := self._saved(session_id)) is not None:
            stream, resumed = self._restore(session_id, value)
        elif self.names_from_clients and NAME.fullmatch(session_id):
            stream = self.open(id=session_id)
        else:
            raise RequestError("not_found", "there is no stream with this session id", status=404, param="session_id")
        with self._lock:
            self._clients[stream.id] = self._clients.get(stream.id, 0) + 1
        return stream, resumed

    def disconnect(self, stream: LiveStream) -> None:
        """A client went. Its stream stays until it has been idle for `limits.idle_seconds`."""
        with self._lock:
            self._clients[stream.id] = max(self._clients.get(stream.id, 1) - 1, 0)

    def get(self, name: str) -> LiveStream:
        if name not in self.streams:
            raise RequestError("not_found", "there is no such stream", status=404, param="id")
        return self.streams[name]

    def close(self, stream: LiveStream, *, reason: str = "closed", keep: bool = False) -> None:
        """Ends a stream; keep: saves it first, so that its client may come back."""
        with self._lock:
            source = self._sources.pop(stream.id, None)
            self.streams.pop(stream.id, None)
            self._clients.pop(stream.id, None)
        if source is not None:
            source.close()
        if keep:
            self.save(stream)
        elif self.snapshots is not None:
            self.snapshots.delete(stream.id)
        self.scheduler.close(stream, reason)
        self.metrics.streams.set(len(self.streams))

    def change(self, stream: LiveStream, options: StreamOptions) -> None:
        """Options of a running stream, from its next chunk on."""
        self.scheduler.change(stream, options)

    def ask(self, stream: LiveStream, text: str, max_new_tokens: int | None = None) -> Question:
        """A question to a running stream; its answer comes as events."""
        return stream.ask(text, self.scheduler.answer_cap(max_new_tokens))

    def about(self) -> dict[str, Any]:
        """What a client must know to send pictures that suit the model."""
        return self.scheduler.about()

    # ------------------------------------------------------------------------------------------- sources

    def attach(self, stream: LiveStream, address: str) -> None:
        """Opens a source for a stream and feeds it until it ends. RequestError for what may not or cannot be opened."""
        allowed = self.access.source(address)
        about = self.scheduler.about()
        try:
            source = open_source(
                allowed,
                fps=about["fps"],
                chunk_seconds=about["chunk_seconds"],
                resize=self.scheduler.executor.resize,
                pace="realtime",
                on_status=lambda line: stream.emit("status", message=line),
            )
        except SvlmError as error:
            raise RequestError("source_failed", str(error), param="source") from None
        with self._lock:
            before, self._sources[stream.id] = self._sources.pop(stream.id, None), source
        if before is not None:
            before.close()
        threading.Thread(target=self._feed, args=(stream, source), name="svlm-source", daemon=True).start()

    def _feed(self, stream: LiveStream, source: Source) -> None:
        message = "the source has ended"
        try:
            for chunk in source:
                stream.push_chunk(chunk)
        except RequestError:
            return  # the stream was closed
        except SvlmError as error:
            message = str(error)
        finally:
            source.close()
        with self._lock:
            current = self._sources.get(stream.id) is source
            if current:
                del self._sources[stream.id]
        if current:
            stream.emit("status", message=message, ended=True)

    # ------------------------------------------------------------------------------------------- snapshots

    def save(self, stream: LiveStream) -> bool:
        """Saves a stream; False, with a line in the log, when there is nowhere to, or when the disk refuses."""
        if self.snapshots is None or not stream.chunks:
            return False
        try:
            value = self.scheduler.snapshot(stream)
            self.snapshots.write(stream.id, value)
        except (OSError, SvlmError) as error:
            logger.warning("a stream could not be saved: %s", error)
            stream.emit("status", message="the stream could not be saved; it goes on unsaved")
            return False
        self.metrics.snapshots.inc()
        return True

    def _saved(self, session_id: str) -> dict[str, Any] | None:
        return None if self.snapshots is None else self.snapshots.read(session_id)

    def _restore(self, session_id: str, value: dict[str, Any]) -> tuple[LiveStream, Mapping[str, Any]]:
        self._admit()
        stream = self.scheduler.restore(session_id, value)
        with self._lock:
            self.streams[stream.id] = stream
        self.metrics.streams.set(len(self.streams))
        lost = max(time.time() - value["saved_at"], 0.0)
        return stream, {"position": stream.position, "lost_seconds": round(lost, 3)}

    def _sweep(self) -> None:
        saved: dict[str, float] = {}
        while not self._stopping.wait(SWEEP):
            now = time.monotonic()
            saved = {name: at for name, at in saved.items() if name in self.streams}
            for stream in list(self.streams.values()):
                idle = now - stream.last_frame > self.limits.idle_seconds and stream.id not in self._sources
                if idle and not self._clients.get(stream.id) and not stream.paused:
                    self.close(stream, reason="no picture came for a while", keep=True)
                elif self.snapshots is not None and now - saved.get(stream.id, now - self._every) >= self._every:
                    saved[stream.id] = now
                    self.save(stream)
            self.scheduler.observe(self.metrics)
