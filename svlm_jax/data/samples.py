"""Sets of training samples by number, and what happens to those that cannot be read."""

import dataclasses
import functools
import hashlib
import logging
import threading
from pathlib import Path
from typing import Protocol

import numpy as np

from svlm_jax.data.annotations import AnnotationFile
from svlm_jax.data.chunks import ChunkBuilder, Sample
from svlm_jax.data.clips import frame_count, inside, letterbox, read_clip, source_size
from svlm_jax.models import registry
from svlm_jax.models.resize_rule import ResizeRule
from svlm_jax.video.resize import smart_resize

logger = logging.getLogger(__name__)

Size = tuple[int, int]  # (height, width) in pixels


class Samples(Protocol):
    """A set of samples. Reading one may raise SvlmError; threads share it.

    Attributes:
      name: for messages.
      frames: of one turn.
      shuffled: whether its samples come in random order already, so that shuffling would only scatter what is cached.
    """

    name: str
    frames: int
    shuffled: bool

    def __len__(self) -> int: ...

    def size(self, number: int) -> Size:
        """Of the frames of a sample, as its video has them by the resize rule."""
        ...

    def length(self, number: int, size: Size) -> tuple[int, int]:
        """Tokens and turns that the sample has with frames of that size; no pixels are read."""
        ...

    def load(self, number: int, size: Size) -> Sample:
        """The sample itself, with frames of that size, and black bars where its video has other proportions."""
        ...

    def fingerprint(self) -> str:
        """Changes when the samples do."""
        ...


class AnnotatedVideos:
    """Samples of a file of annotations and the videos that it names, relative to `folder`."""

    shuffled = False

    def __init__(
        self,
        annotations: str | Path,
        build: ChunkBuilder,
        *,
        folder: str | Path | None = None,
        resize: ResizeRule | None = None,
    ) -> None:
        self._file = AnnotationFile(annotations)
        self.name = self._file.path.name
        self.frames = build.settings.frames
        self._build, self._resize = build, resize or registry.resize_rule(build.model)
        self._folder = Path(folder) if folder is not None else self._file.path.parent
        self._source_size = functools.lru_cache(maxsize=100_000)(source_size)

    def __len__(self) -> int:
        return len(self._file)

    def size(self, number: int) -> Size:
        if self._resize.size is not None:
            return self._resize.size
        annotation = self._file[number]
        rule = self._resize.for_clip(frame_count(annotation, self._build.settings))
        return smart_resize(*self._source_size(self._folder / annotation.video), rule)

    def length(self, number: int, size: Size) -> tuple[int, int]:
        return self._build.length(self._file[number], size)

    def load(self, number: int, size: Size) -> Sample:
        annotation = self._file[number]
        rule = dataclasses.replace(self._resize, size=inside(self.size(number), size, self._resize.factor))
        clips = read_clip(self._folder / annotation.video, annotation, self._build.settings, rule)
        return self._build(annotation, letterbox(clips, size))

    def fingerprint(self) -> str:
        """Of the annotations and of how they become samples; videos are known by their names only."""
        return digest(self._file.fingerprint(), self._build.settings, self._resize, self._build.model)


def digest(*parts: object) -> str:
    """A short hash of what `repr` says about the parts."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


class Broken:
    """Samples that could not be read, each counted and logged once. Shared by the threads of a pipeline.

    What annotations and headers of videos show is found on every host, a video that fails while it is decoded on the host that
    reads it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sentences: dict[tuple[str, int], str] = {}

    def add(self, name: str, number: int, error: Exception) -> None:
        with self._lock:
            if (name, number) in self._sentences:
                return
            self._sentences[name, number] = str(error)
        logger.warning("%s, sample %d is left out: %s", name, number, error)

    def __len__(self) -> int:
        return len(self._sentences)

    def counts(self) -> dict[str, int]:
        """Broken samples by set."""
        with self._lock:
            names, counts = np.unique([name for name, _ in self._sentences], return_counts=True)
        return dict(zip(names.tolist(), counts.tolist(), strict=True))

    def sentences(self) -> list[str]:
        with self._lock:
            return list(self._sentences.values())
