"""Batches for training: mixed, shuffled, grouped by length, read ahead by threads, and resumed exactly.

    sets --shuffle, mix--> batches of one set each --windows sorted by bucket--> batches of one shape --rows--> each host

Everything up to the rows is arithmetic on the position in the stream, so the state of a pipeline is one number, the same on
every host, and continuing on another number of hosts gives the same global batches.
"""

import collections
import dataclasses
import functools
import threading
from collections.abc import Iterator, Sequence
from concurrent import futures
from typing import Any, Self

import av.error
import grain
import numpy as np
from grain.experimental import ElasticIterator

from svlm_jax.data.chunks import Batch, Bucket, Sample, blank_sample, pad_sample
from svlm_jax.data.clips import nearest
from svlm_jax.data.samples import Broken, Samples, Size, digest
from svlm_jax.errors import ConfigError, DataError, SvlmError

Reference = tuple[int, int]  # which set, which sample of it
KEPT = 4  # planned windows that are remembered
ENDLESS = 2**60  # rows; a length that Python can still express
UNREADABLE = (SvlmError, OSError, av.error.FFmpegError)  # of one sample: the run goes on


@dataclasses.dataclass(frozen=True)
class PipelineSettings:
    """How samples become batches.

    Attributes:
      batch: rows of a global batch, over all hosts.
      buckets: the shapes that batches may have; the smallest that holds a whole batch is taken. Pictures of other sizes get
        the one that suits them best.
      seed: same seed, same batches.
      shuffle: False keeps the order of the sets, for evaluation.
      window: global batches whose samples are sorted by length together; 1 keeps the order.
      threads: that read samples. ahead: batches read ahead by each host.
    """

    batch: int
    buckets: tuple[Bucket, ...]
    seed: int = 0
    shuffle: bool = True
    window: int = 8
    threads: int = 4
    ahead: int = 4

    def __post_init__(self) -> None:
        for name in ("batch", "window", "threads", "ahead"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: expected at least 1")
        if not self.buckets:
            raise ConfigError("buckets=(): expected at least one shape")

    def bucket(self, tokens: int, clips: int, size: Size) -> Bucket:
        """The smallest bucket that holds a sample; DataError when none does."""
        fitting = [bucket for bucket in self.buckets if bucket.holds(tokens, clips, size)]
        if not fitting:
            raise DataError(
                f"it has {tokens} tokens and {clips} clips of {size[0]}x{size[1]} pixels, for which no shape of batch has room."
            )
        return min(fitting)


class Pipeline:
    """An endless iterator of this host's rows of each global batch.

    Args:
      sets: sets of samples with their weights in the mixture.
      host, hosts: this one's number, and how many share a global batch.
    Raises:
      ConfigError: settings that cannot work.
    """

    def __init__(
        self, sets: Sequence[tuple[Samples, float]], settings: PipelineSettings, *, host: int = 0, hosts: int = 1
    ) -> None:
        if not sets or any(weight <= 0 or not len(samples) for samples, weight in sets):
            raise ConfigError("a pipeline needs sets that have samples, with weights above 0.")
        if settings.batch % hosts or not 0 <= host < hosts:
            raise ConfigError(f"a global batch of {settings.batch} rows does not divide among {hosts} hosts (this is {host}).")
        self.settings = settings
        self.broken = Broken()
        self._sets = [samples for samples, _ in sets]
        self._hash = digest([(samples.fingerprint(), weight) for samples, weight in sets], _shape(settings))
        self._plan = _Plan(self._sets, _order(sets, settings), settings, self.broken)
        rows = grain.MapDataset.source(self._plan).map(functools.partial(_load, self._sets, self.broken))
        self._iterator = ElasticIterator(
            rows,
            settings.batch,
            grain.sharding.ShardOptions(shard_index=host, shard_count=hosts),
            read_options=grain.ReadOptions(num_threads=settings.threads, prefetch_buffer_size=settings.ahead),
        )

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        batch: Batch = next(self._iterator)
        return batch

    def state(self) -> dict[str, Any]:
        """The position, JSON, the same on every host."""
        return {"position": self._iterator.get_state()["global_next_index"], "hash": self._hash}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on where `state` was taken, whatever the number of hosts was then.

        Raises DataError when the data or the settings that decide its order are others.
        """
        if state["hash"] != self._hash:
            raise DataError(
                f"the data is not what it was when the run was saved: its hash is {self._hash}, expected {state['hash']}."
            )
        if state["position"] % self.settings.batch:
            raise DataError(f"position {state['position']} is not the beginning of a batch of {self.settings.batch} rows.")
        self._iterator.set_state({"global_next_index": state["position"]})

    @property
    def hash(self) -> str:
        """Of the samples and of their order."""
        return self._hash

    def close(self) -> None:
        """Stops the threads."""
        self._plan.close()
        self._iterator.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _shape(settings: PipelineSettings) -> tuple[Any, ...]:
    """The settings that decide which samples come when."""
    return settings.batch, settings.buckets, settings.seed, settings.shuffle, settings.window


def _order(sets: Sequence[tuple[Samples, float]], settings: PipelineSettings) -> Any:
    """Lists of references, a batch each, without end: shuffled anew in every epoch of a set, then mixed.

    Batches are of one set because sets may differ in shape, and a batch has one.
    """
    parts = []
    for index, (samples, _) in enumerate(sets):
        part = grain.MapDataset.range(len(samples))
        if settings.shuffle and not samples.shuffled:
            part = part.seed(settings.seed + index).shuffle()
        parts.append(part.repeat().batch(settings.batch, drop_remainder=True).map(functools.partial(_refer, index)))
    if len(parts) == 1:
        return parts[0]
    total = sum(weight for _, weight in sets)
    return grain.MapDataset.mix(parts, [weight / total for _, weight in sets])


def _refer(index: int, numbers: np.ndarray) -> list[Reference]:
    return [(index, int(number)) for number in numbers]


def _load(sets: Sequence[Samples], broken: Broken, row: tuple[Reference, Bucket]) -> Sample:
    """The sample of a row in the shape of its bucket; blank when it cannot be read."""
    (index, number), bucket = row
    samples = sets[index]
    frames = samples.frames
    if number < 0:
        return blank_sample(bucket, frames)
    try:
        return pad_sample(samples.load(number, bucket.size), bucket)
    except UNREADABLE as error:
        broken.add(samples.name, number, error)
        return blank_sample(bucket, frames)


class _Plan:
    """Rows in the order in which they are trained on: (reference, bucket). A number below 0 is a sample known to be broken.

    The samples of each window of global batches are sorted by shape and dealt out in batches, whose order is shuffled.
    """

    def __init__(self, sets: Sequence[Samples], order: Any, settings: PipelineSettings, broken: Broken) -> None:
        self._sets, self._order, self._settings, self._broken = sets, order, settings, broken
        self._rows = settings.window * settings.batch
        self._sizes = [bucket.size for bucket in settings.buckets]
        self._windows: collections.OrderedDict[int, futures.Future[list[tuple[Reference, Bucket]]]] = collections.OrderedDict()
        self._lock = threading.Lock()
        self._planner = futures.ThreadPoolExecutor(1, thread_name_prefix="svlm-plan")
        self._closed = False

    def __len__(self) -> int:
        return min(len(self._order) // self._settings.window * self._rows, ENDLESS)

    def __getitem__(self, row: Any) -> tuple[Reference, Bucket]:
        window, place = divmod(int(row), self._rows)
        with self._lock:
            # The window that follows is planned while this one is read.
            planned, _ = self._ask(window), self._ask(window + 1)
        return planned.result()[place]

    def close(self) -> None:
        self._closed = True
        self._planner.shutdown(wait=True, cancel_futures=True)

    def _ask(self, window: int) -> "futures.Future[list[tuple[Reference, Bucket]]]":
        if window not in self._windows:
            self._windows[window] = self._planner.submit(lambda: list(self._planned(window)))
            if len(self._windows) > KEPT:
                self._windows.popitem(last=False)
        return self._windows[window]

    def _planned(self, window: int) -> Iterator[tuple[Reference, Bucket]]:
        settings = self._settings
        blocks = range(window * settings.window, (window + 1) * settings.window)
        references = [reference for block in blocks for reference in self._order[block]]
        shapes = [None if self._closed else self._bucket(reference) for reference in references]
        places = list(range(self._rows))
        if settings.window > 1:
            places.sort(key=lambda place: _alike(references[place], shapes[place]))
        batches = [places[at : at + settings.batch] for at in range(0, self._rows, settings.batch)]
        if settings.shuffle and settings.window > 1:
            order = np.random.default_rng([settings.seed, window]).permutation(len(batches))
            batches = [batches[number] for number in order]
        for batch in batches:
            yield from self._one_shape([references[place] for place in batch], [shapes[place] for place in batch])

    def _bucket(self, reference: Reference, size: Size | None = None) -> Bucket | None:
        """The bucket that a sample needs; None when it cannot be read or fits none."""
        index, number = reference
        samples = self._sets[index]
        try:
            size = size or nearest(samples.size(number), self._sizes)
            return self._settings.bucket(*samples.length(number, size), size)
        except UNREADABLE as error:
            self._broken.add(samples.name, number, error)
            return None

    def _one_shape(
        self, references: Sequence[Reference], shapes: Sequence[Bucket | None]
    ) -> Iterator[tuple[Reference, Bucket]]:
        """A batch in one bucket. Where two picture sizes meet, all get the commoner one."""
        sizes = collections.Counter(shape.size for shape in shapes if shape is not None)
        size = sizes.most_common(1)[0][0] if sizes else self._settings.buckets[0].size
        fitted = [
            shape if shape is None or shape.size == size else self._bucket(reference, size)
            for reference, shape in zip(references, shapes, strict=True)
        ]
        bucket = self._common([shape for shape in fitted if shape is not None], size)
        for (index, number), shape in zip(references, fitted, strict=True):
            if shape is not None and not bucket.holds(shape.tokens, shape.clips, size):
                shape = None
                self._broken.add(
                    self._sets[index].name, number, DataError("no shape of batch has room for it and the rest of its batch.")
                )
            yield ((index, number if shape is not None else -1), bucket)

    def _common(self, needed: Sequence[Bucket], size: Size) -> Bucket:
        """The smallest bucket that holds all, else the one that most need."""
        tokens, clips = (max((getattr(shape, name) for shape in needed), default=0) for name in ("tokens", "clips"))
        fitting = [bucket for bucket in self._settings.buckets if bucket.holds(tokens, clips, size)]
        return min(fitting) if fitting else collections.Counter(needed).most_common(1)[0][0]


def _alike(reference: Reference, shape: Bucket | None) -> tuple[Any, ...]:
    """Sorts by set, so that none shares a batch with another, then by shape, what cannot be read last: it fits everywhere."""
    return reference[0], shape is None, () if shape is None else (shape.size, shape.tokens, shape.clips)
