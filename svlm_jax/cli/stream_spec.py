"""What a command line asks of a stream, in one value: made from the options, and from then on the only thing that is read."""

import argparse
import dataclasses
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax

from svlm_jax.cache.number_formats import EightBit
from svlm_jax.cache.window import Lengths, ring_shape
from svlm_jax.checkpoint import hf, named
from svlm_jax.checkpoint.streaming_block import resize_rule
from svlm_jax.cli.options import window_changes
from svlm_jax.engine.sampling import Sampling
from svlm_jax.host.progress import Stages
from svlm_jax.models.resize_rule import ResizeRule
from svlm_jax.output.panel import Status
from svlm_jax.streaming.resume import check_resumable
from svlm_jax.streaming.saved import where_saved
from svlm_jax.streaming.session import Session
from svlm_jax.streaming.settings import StreamSettings
from svlm_jax.streaming.vlm import StreamingVLM
from svlm_jax.video.chunk_queue import Behind
from svlm_jax.video.source import Source, open_source

logger = logging.getLogger(__name__)

# What the models of this package know, and nothing else: the addresses of their videos, and what their files are marked with.
KNOWS = {hf.EMBEDDED: "synthetic:match", hf.FACTS: "synthetic:facts"}


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """Which model, and in which number format; quantize: of 8 bits, that of the decoder's weights."""

    name: str
    revision: str | None
    dtype: str
    quantize: EightBit | None

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> "ModelSpec":
        return cls(arguments.model, arguments.revision, arguments.dtype, arguments.quantize)

    def load(self, stages: Stages) -> StreamingVLM:
        stages.enter(f"loading {self.name}")
        options: dict[str, Any] = {"dtype": self.dtype, "quantize": self.quantize}
        return StreamingVLM.from_pretrained(self.name, revision=self.revision, progress=stages.move, **options)


@dataclasses.dataclass(frozen=True)
class SourceSpec:
    """Which video, which part of it, and at which pace.

    Attributes:
      source: as `open_source` takes it.
      start: stream seconds at which to begin; None: at 0, or where a resumed stream stands.
      duration: seconds to watch, None for all.
      limits: those of `variant` and `max_input_pixels` that were given, see `open_source`.
    """

    source: str
    start: float | None
    duration: float | None
    pace: Literal["fast", "realtime"]
    behind: Behind | None
    limits: Mapping[str, int]

    @classmethod
    def of(cls, arguments: argparse.Namespace, source: str) -> "SourceSpec":
        pace: Literal["fast", "realtime"] = "realtime" if arguments.realtime else "fast"
        given = {"variant": arguments.variant, "max_input_pixels": arguments.max_input_pixels}
        limits = {name: value for name, value in given.items() if value is not None}
        return cls(source, arguments.start, arguments.duration, pace, arguments.behind, limits)

    def options(self, start: float) -> dict[str, Any]:
        """Arguments of `open_source`."""
        return {
            "pace": self.pace,
            "behind": self.behind,
            "start": start if self.start is None else self.start,
            "duration": self.duration,
            "on_status": logger.warning,
            **self.limits,
        }

    def span(self, source: Source, position: float) -> tuple[float, float | None]:
        """Stream seconds at which watching begins, for a stream that stands at `position`, and, if that is known, ends."""
        begin = position if self.start is None else self.start
        ends = [source.info.duration, None if self.duration is None else begin + self.duration]
        return begin, min((end for end in ends if end is not None), default=None)


@dataclasses.dataclass(frozen=True)
class StreamSpec:
    """A stream of captions: the model, the video, and how it is watched.

    Attributes:
      settings: all of them; of a resumed stream those that it was saved with.
      resize: how large frames reach the model.
      position: stream seconds at which a resumed stream stands, else 0.
      resume: the folder of a saved stream.
    """

    model: ModelSpec
    video: SourceSpec
    settings: StreamSettings
    resize: ResizeRule
    position: float
    resume: str | None

    @classmethod
    def of(cls, arguments: argparse.Namespace, source: str, given: Sequence[str]) -> "StreamSpec":
        """Raises ConfigError and CheckpointError for what cannot work, before anything is loaded.

        given: the names of the options on the command line; a stream that is resumed takes no other settings than its own.
        """
        model, video = ModelSpec.of(arguments), SourceSpec.of(arguments, source)
        about = named.describe(model.name, revision=model.revision)
        settings, position = settings_of(arguments, about.generation_config), 0.0
        if arguments.resume:
            saved, sampling, position = where_saved(arguments.resume)
            check_resumable(saved, sampling, settings, given)
            settings = dataclasses.replace(saved, split_timing=settings.split_timing, implementation=settings.implementation)
        rule = resize_rule(about.config, about.generation_config, settings.max_pixels)
        return cls(model, video, settings, rule, position, arguments.resume)

    def open(self) -> tuple["StreamSpec", Source]:
        """The source, opened, and this with the source's length. ConfigError for a window that would never close."""
        settings = self.settings
        source = open_source(
            self.video.source,
            fps=settings.fps,
            chunk_seconds=settings.chunk_seconds,
            sampling="published" if settings.parity else "pts",
            resize=self.resize,
            **self.video.options(self.position),
        )
        try:
            bounded = dataclasses.replace(settings, duration=settings.duration or source.info.duration)
            nothing = Lengths(system=0, previous=0, label=0, query=0, reply=0, patches=0)
            ring_shape(bounded.window, nothing, bounded.chunk_seconds, bounded.duration)
        except BaseException:
            source.close()
            raise
        return dataclasses.replace(self, settings=bounded), source

    def session(self, vlm: StreamingVLM) -> Session:
        """The stream, new or resumed."""
        if self.resume is None:
            return vlm.stream(self.settings)
        how = {"split_timing": self.settings.split_timing, "implementation": self.settings.implementation}
        return vlm.resume(self.resume, **how)

    def span(self, source: Source) -> tuple[float, float | None]:
        """Stream seconds at which watching begins and, if that is known, ends."""
        return self.video.span(source, self.position)

    def status(self, source: Source, shown: str) -> Status:
        """What the live view says about it. shown: what it watches, in words."""
        device, kept = jax.devices()[0], self.settings.window
        begin, end = self.span(source)
        return Status(
            model=self.model.name,
            source=shown,
            window=f"{kept.memory}: vision {kept.vision:g} s, text {kept.text:g} s, sink {kept.sink}, tail {kept.tail}",
            device=" ".join(dict.fromkeys((device.platform, device.device_kind))),  # a CPU's kind is its platform
            begin=begin,
            end=end,
        )


def settings_of(arguments: argparse.Namespace, generation: dict[str, Any]) -> StreamSettings:
    """What was asked for, else what the checkpoint says, else the published. Options that a command lacks are not asked for."""
    trained = StreamSettings.from_generation_config(generation)
    names = (
        "query",
        "system",
        "previous_text",
        "fps",
        "seed",
        "duration",
        "parity",
        "implementation",
        "max_pixels",
        "cache_dtype",
    )
    given = {name: value for name in names if (value := getattr(arguments, name, None)) is not None}
    if getattr(arguments, "chunk", None) is not None:
        given["chunk_seconds"] = arguments.chunk
    if getattr(arguments, "split_timings", None) is not None:
        given["split_timing"] = arguments.split_timings
    asked = {name: getattr(arguments, name, None) for name in ("top_k", "top_p", "repetition_penalty", "max_new_tokens")}
    greedy = getattr(arguments, "greedy", False)
    asked["temperature"] = 0.0 if greedy else getattr(arguments, "temperature", None)
    return dataclasses.replace(
        trained,
        window=dataclasses.replace(trained.window, **window_changes(arguments)),
        sampling=Sampling.from_generation_config(generation, **asked),
        **given,
    )


def warn_of_unknown_video(model: str, source: str) -> None:
    """Says that a model of this package knows nothing but the videos that are drawn for it, when it gets another one."""
    known = KNOWS.get(model)
    if known is None or source.startswith(known) or (os.path.isfile(source) and _mark(source).startswith(known)):
        return
    logger.warning(
        "%s knows nothing but the drawn videos of %s: what it says about %s means nothing; real videos need a model such as "
        "mit-han-lab/StreamingVLM",
        model,
        known,
        source,
    )


def _mark(path: str) -> str:
    """The comment in a video file, which says what it was drawn from; "" without one."""
    import av
    import av.error

    try:
        with av.open(f"file:{path}", metadata_errors="replace") as container:
            return container.metadata.get("comment", "")
    except (OSError, av.error.FFmpegError):
        return ""
