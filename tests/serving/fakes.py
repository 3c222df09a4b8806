"""A server over an executor without a model: every caption says which chunk it is of, at once."""

import dataclasses
import time
from types import SimpleNamespace

import numpy as np

from svlm_jax.cache.window import WindowConfig
from svlm_jax.engine.sampling import Sampling
from svlm_jax.errors import RequestError, StreamError
from svlm_jax.models.resize_rule import PUBLISHED
from svlm_jax.serving.access import Access
from svlm_jax.serving.frames import FrameAssembler
from svlm_jax.serving.hub import Hub
from svlm_jax.serving.limits import Limits
from svlm_jax.serving.metrics import Metrics
from svlm_jax.serving.scheduler import Scheduler
from svlm_jax.serving.stream import StreamOptions

OPTIONS = StreamOptions(system="You see.", query="What?", window=WindowConfig(), sampling=Sampling())


class FakeBatch:
    """Replies whose tokens are characters."""

    def __init__(self, jobs):
        self.jobs, self.says, self.tokens = jobs, [""] * len(jobs), [()] * len(jobs)
        self.errors, self.left = [None] * len(jobs), set()


class FakeExecutor:
    """Lanes that hold how many chunks they have seen. A chunk whose first pixel is `poison` fails."""

    poison = 13
    slice_seconds = 0.0
    more_to_say = ""  # behind every answer

    def __init__(self, lanes=2, spare=1):
        self.lanes, self.spare, self.ladder, self.chunk_seconds = lanes, spare, (1, 2), 1.0
        self.state, self.vlm, self.begun = {}, None, []

    @property
    def capacity(self):
        return self.lanes

    def took(self, count, seconds):
        pass

    @property
    def used(self):
        return len(self.state)

    def open(self, options):
        free = [lane for lane in range(self.lanes) if lane not in self.state]
        if not free:
            raise RequestError("session_capacity_exceeded", f"{self.lanes} streams run already", status=503)
        self.state[free[0]] = [0, options]
        return free[0]

    def fork(self, lane):
        free = [lane for lane in range(self.lanes, self.lanes + self.spare) if lane not in self.state]
        if not free:
            raise RequestError("busy", "no spare lane", status=503)
        self.state[free[0]] = list(self.state[lane])
        return free[0]

    def release(self, lane):
        del self.state[lane]

    def extract(self, lane):
        return {"seen": np.asarray(self.state[lane][0])}

    def insert(self, state, options):
        lane = self.open(options)
        self.state[lane][0] = int(state["seen"])
        return lane

    def resume(self, lane, *, chunks):
        pass

    def like(self):
        return {"seen": np.asarray(0)}

    def change(self, lane, before, after):
        self.state[lane][1] = after

    def begin(self, jobs):
        self.begun.append([job.lane for job in jobs])
        batch = FakeBatch(jobs)
        for row, job in enumerate(jobs):
            if job.chunk.frames[0, 0, 0, 0] == self.poison:
                batch.errors[row] = StreamError("this chunk cannot be read")
                continue
            self.state[job.lane][0] += job.question is None
            number = self.state[job.lane][0]
            batch.says[row] = f"answer {number}{self.more_to_say}" if job.question else f"caption {number}"
        self._say(batch, 1)
        return batch

    def extend(self, batch, tokens):
        time.sleep(self.slice_seconds)
        self._say(batch, tokens)

    def _say(self, batch, tokens):
        for row in self.speaking(batch):
            batch.tokens[row] += tuple(batch.says[row][len(batch.tokens[row]) :][:tokens])

    def speaking(self, batch):
        return {row for row, says in enumerate(batch.says) if len(batch.tokens[row]) < len(says) and row not in batch.left}

    def leave(self, batch, row):
        batch.left.add(row)

    def finish(self, batch, row):
        pass

    def text(self, batch, row):
        return "".join(batch.tokens[row])

    words = text

    def usage(self, batch, row):
        return {"vision": (10, 20), "turns": (5, 20), "system": (3, 3)}

    def assembler(self, begin):
        return FrameAssembler(fps=2.0, count=2, size=(28, 28), begin=begin)

    resize = dataclasses.replace(PUBLISHED, size=(28, 28))

    def about(self):
        return {"fps": 2.0, "chunk_seconds": 1.0, "height": 28, "width": 28}

    def device_bytes(self):
        return 0


def fake_hub(*, lanes=2, limits=None, access=None, snapshots=None, **options):
    metrics, limits = Metrics(), limits or Limits()
    scheduler = Scheduler(FakeExecutor(lanes), defaults=OPTIONS, limits=limits, metrics=metrics)
    return Hub(
        scheduler,
        model="fake",
        limits=limits,
        access=access or Access(),
        metrics=metrics,
        snapshots=snapshots,
        **options,
    )


def changed(limits=None, **values):
    return dataclasses.replace(limits or Limits(), **values)


def client_of(address="127.0.0.1", port=8000):
    return SimpleNamespace(host=address, port=port)
