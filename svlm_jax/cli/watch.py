"""`svlm watch`: a video stream in, captions out."""

import argparse
import contextlib
import dataclasses
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from svlm_jax.cli.ask import add_questions, check_questions, questions_beside
from svlm_jax.cli.values import add_input_limits, add_source, input_limits, number, window
from svlm_jax.host.progress import loading
from svlm_jax.host.signals import Stoppable

if TYPE_CHECKING:
    from svlm_jax.checkpoint.streaming_block import PixelBounds
    from svlm_jax.engine.sampling import Sampling
    from svlm_jax.output import SinkGroup
    from svlm_jax.streaming.session import Session
    from svlm_jax.streaming.settings import StreamSettings
    from svlm_jax.video.source import Source

EXAMPLES = """\
examples:
  svlm watch match.mp4 --model mit-han-lab/StreamingVLM
  svlm watch 'synthetic:match?seed=5&minutes=2' --model embedded        a drawn match, and the model that knows it
  svlm watch 0 --model ./my-model                                       the first webcam
  svlm watch rtsp://user:secret@camera/stream --model ./my-model --jsonl log.jsonl --no-live
  svlm watch match.mp4 --model ./my-model --realtime --behind merge     as if it were live
  svlm watch match.mp4 --model ./my-model --window vision=8,text=16     8 s of pictures, 16 s of words in place
  svlm watch match.mp4 --model ./my-model --ask "00:42 Who scored first?"  asked beside the captions
  svlm watch match.mp4 --model ./my-model --duration 60 --save-state here && \\
  svlm watch match.mp4 --model ./my-model --resume here                 stop, and go on later

A window is counted in seconds of video and in tokens of text:
  vision=16   pictures of the last 16 s stay in the cache
  text=16     the words of the last 16 s stay beside the pictures that they belong to
  sink=512    of all earlier words, the first 512 tokens stay for ever ...
  tail=512    ... and the last 512; sink=none,tail=none keeps every word, and the cache then bounds the length of the run
These are the defaults, unless the model's generation_config.json has a block "svlm" that says with which window, query,
sampling and picture size it was trained."""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "watch",
        help="caption a video file, URL, webcam or RTSP stream",
        description="Watch a video stream and say, once a second, what happens.",
        epilog=EXAMPLES,
    )
    add_source(parser)
    _model(parser.add_argument_group("model"))
    _video(parser.add_argument_group("video"))
    _memory(parser.add_argument_group("memory"))
    _speech(parser.add_argument_group("speech"))
    _output(parser.add_argument_group("output"))
    add_questions(parser.add_argument_group("questions"))
    return parser


def parse(words: list[str]) -> argparse.Namespace:
    """The arguments of `svlm watch ...`, for commands that hand over to it."""
    parser = argparse.ArgumentParser(prog="svlm")
    add(parser.add_subparsers())
    return parser.parse_args(words, argparse.Namespace(words=words))


def _model(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--model", required=True, metavar="FOLDER_OR_HUB_ID", help="a Hugging Face checkpoint, or embedded")
    group.add_argument("--revision", metavar="NAME", help="branch, tag or commit of a hub id (default: its main branch)")
    group.add_argument(
        "--dtype",
        choices=("auto", "bfloat16", "float32"),
        default="auto",
        help="number format of weights and cache (default: auto = bfloat16 on GPU and TPU, float32 on CPU)",
    )

    group.add_argument(
        "--implementation",
        choices=("auto", "xla", "reference", "mosaic_gpu", "mosaic_tpu", "interpret"),
        default="auto",
        help="of attention: the fastest for the device (auto, default), or one by name, which then runs or says why it cannot",
    )


def _video(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--fps", type=number(float, above=0), default=2.0, help="frames per second that the model sees (2)")
    group.add_argument(
        "--chunk", type=number(float, above=0), default=1.0, metavar="SECONDS", help="video between two captions (1)"
    )
    group.add_argument(
        "--start", type=number(float, least=0), metavar="SECONDS", help="where to begin (0, or where a resumed stream stopped)"
    )
    group.add_argument("--duration", type=number(float, above=0), metavar="SECONDS", help="how much to watch (all)")
    group.add_argument("--realtime", action="store_true", help="play a file at its own speed instead of as fast as possible")
    group.add_argument(
        "--behind",
        choices=("drop", "merge", "wait"),
        help="when the model is slower than the stream: skip to the newest second (drop), see the missed span as one chunk "
        "(merge), or let the lag grow (wait, files only); default: drop for live sources and --realtime, else wait",
    )
    group.add_argument(
        "--max-pixels",
        type=number(int, least=784),
        metavar="N",
        help="pixels of a frame at most (as the model was trained, else 602112)",
    )
    add_input_limits(group)


def _memory(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--window", type=window, default={}, metavar="PARTS", help="vision=16,text=16,sink=512,tail=512, or part of it"
    )
    group.add_argument(
        "--memory",
        choices=("stream", "full", "hard-reset", "recompute"),
        default="stream",
        help="stream: evict second by second (default); the others are baselines: keep all, forget all when the window is "
        "full, or see the whole window anew every second",
    )
    group.add_argument(
        "--positions",
        choices=("contiguous", "native", "text"),
        help="renumber after eviction (contiguous, default), let positions grow (native), or count every token as text (text)",
    )
    group.add_argument("--save-state", metavar="FOLDER", help="when watching ends, save the stream so that it can go on later")
    group.add_argument(
        "--resume", metavar="FOLDER", help="go on with a saved stream, with its own window, fps, prompt, sampling and parity"
    )


def _speech(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--query", metavar="TEXT", help="what to talk about (default: commentate)")
    group.add_argument("--system", metavar="TEXT", help="system prompt")
    group.add_argument("--previous-text", metavar="TEXT", help="what was said before the stream begins")
    group.add_argument(
        "--max-new-tokens", type=number(int, least=1), metavar="N", help="words a second at most, in tokens (20)"
    )
    group.add_argument("--temperature", type=number(float, above=0), metavar="T", help="randomness (0.9)")
    group.add_argument("--top-k", type=number(int, least=0), metavar="K", help="choose among the K likeliest tokens (0 = all)")
    group.add_argument("--top-p", type=number(float, above=0), metavar="P", help="choose among the likeliest P of 1 (1 = all)")
    group.add_argument("--repetition-penalty", type=number(float, above=0), metavar="R", help="1 = none (1.05)")
    group.add_argument("--greedy", action="store_true", help="always the likeliest token: no randomness")
    group.add_argument("--seed", type=number(int, least=0), default=42, help="same seed, same words (42)")
    group.add_argument("--parity", action="store_true", help="reproduce the published code, its known defects included")


def _output(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--vtt", metavar="FILE", help="captions as WebVTT")
    group.add_argument("--srt", metavar="FILE", help="captions as SRT")
    group.add_argument("--jsonl", metavar="FILE", help="one JSON object a second, silence included")
    group.add_argument("--video", metavar="FILE", help="a copy of the video with the captions drawn in")
    group.add_argument("--no-live", action="store_true", help="one plain line a caption instead of the live view")
    group.add_argument(
        "--split-timings",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="time vision, prefill and decoding apart, by running a second as three programs (default: in the live view)",
    )


def given(words: Sequence[str]) -> list[str]:
    """The names of the options that a command line holds, whatever they would be without it."""
    parser = argparse.ArgumentParser(prog="svlm", argument_default=argparse.SUPPRESS, exit_on_error=False)
    for action in add(parser.add_subparsers())._actions:
        action.default = argparse.SUPPRESS
    found = vars(parser.parse_known_args(list(words))[0])
    return [name.replace("_", "-") for name in found] + [f"window {part}" for part in found.get("window", ())]


def run(arguments: argparse.Namespace) -> int:
    follow(arguments)
    return 0


def follow(arguments: argparse.Namespace) -> tuple[float, float]:
    """Watch until the source ends or a signal comes; every file is complete afterwards.

    Returns the seconds of video behind the first chunk, in which programs are compiled, and the wall time that they took.
    """
    from svlm_jax.checkpoint import hf
    from svlm_jax.checkpoint.streaming_block import pixel_bounds
    from svlm_jax.host.compile_cache import keep_compiled
    from svlm_jax.host.files import check_distinct, check_target
    from svlm_jax.host.folders import check_replaceable
    from svlm_jax.host.malloc import limit_arenas
    from svlm_jax.streaming.resume import check_resumable
    from svlm_jax.streaming.saved import is_stream
    from svlm_jax.streaming.vlm import StreamingVLM

    limit_arenas()
    keep_compiled()
    generation = hf.generation_config(arguments.model, revision=arguments.revision)
    settings, pixels = _settings(arguments, generation), pixel_bounds(generation, arguments.max_pixels)
    targets = (arguments.vtt, arguments.srt, arguments.jsonl, arguments.video)
    check_questions(arguments)
    outputs = [check_target(path) for path in targets if path] + [arguments.save_state] * bool(arguments.save_state)
    check_distinct(outputs, [arguments.source, arguments.model])
    if arguments.save_state:
        check_replaceable(arguments.save_state, is_stream)
    with contextlib.ExitStack() as stack:
        source = None
        if not arguments.resume:  # what cannot work is said before minutes of loading; a pipe can be opened only once
            source = stack.enter_context(_open(arguments, settings, pixels, arguments.start or 0.0))
            settings = _bounded(settings, source.info.duration)
        with loading(f"loading {arguments.model}") as progress:
            vlm = StreamingVLM.from_pretrained(
                arguments.model, dtype=arguments.dtype, revision=arguments.revision, progress=progress
            )
        if arguments.resume:
            how = {"split_timing": settings.split_timing, "implementation": settings.implementation}
            session = vlm.resume(arguments.resume, **how)
            check_resumable(session.settings, session.sampling, settings, given(arguments.words))
        else:
            session = vlm.stream(settings)
        if source is None:  # its settings are the saved ones
            start = session.position if arguments.start is None else arguments.start
            source = stack.enter_context(_open(arguments, session.settings, pixels, start))
        asked = questions_beside(arguments, session)
        rehearsal = source.peek() if arguments.realtime or source.info.live else None
        if rehearsal is not None:  # compiles now, so that no second of a running stream is lost to it
            session.fork().feed(rehearsal)
            if asked is not None:
                asked.rehearse(rehearsal)
        chunks = stack.enter_context(Stoppable(iter(source)))  # left last: signals must not tear what follows apart
        sink = stack.enter_context(_sinks(arguments, session, source))
        if arguments.save_state:
            stack.callback(_save, session, arguments.save_state)
        begin, first = time.perf_counter(), None
        for chunk in chunks:
            sink.write(session.feed(chunk), chunk.frames)
            if asked is not None:
                asked.feed(chunk)
            if first is None:
                begin, first = time.perf_counter(), session.position
        if asked is not None and not chunks.interrupted:
            asked.finish()
    if chunks.interrupted:
        raise chunks.interrupted
    return session.position - (first or 0.0), time.perf_counter() - begin


def _settings(arguments: argparse.Namespace, generation: Mapping[str, Any]) -> "StreamSettings":
    """All settings but those that need the source: what was asked for, else what the checkpoint says, else the published."""
    from svlm_jax.streaming.settings import StreamSettings

    given = {"query": arguments.query, "system": arguments.system, "previous_text": arguments.previous_text}
    trained = StreamSettings.from_generation_config(generation)
    positions = {"positions": arguments.positions} if arguments.positions else {}
    return dataclasses.replace(
        trained,
        window=dataclasses.replace(trained.window, **arguments.window, memory=arguments.memory, **positions),
        sampling=_sampling(arguments, generation),
        fps=arguments.fps,
        chunk_seconds=arguments.chunk,
        seed=arguments.seed,
        duration=arguments.duration,
        parity=arguments.parity,
        split_timing=_split_timing(arguments),
        implementation=arguments.implementation,
        **{name: text for name, text in given.items() if text is not None},
    )


def _split_timing(arguments: argparse.Namespace) -> bool:
    """Only the live view shows the parts of a second; everything else takes the one program."""
    if arguments.split_timings is not None:
        return bool(arguments.split_timings)
    return not arguments.no_live and sys.stdout.isatty()


def _sampling(arguments: argparse.Namespace, generation: Mapping[str, Any]) -> "Sampling":
    from svlm_jax.engine.sampling import Sampling

    return Sampling.from_generation_config(
        generation,
        temperature=0.0 if arguments.greedy else arguments.temperature,
        top_k=arguments.top_k,
        top_p=arguments.top_p,
        repetition_penalty=arguments.repetition_penalty,
        max_new_tokens=arguments.max_new_tokens,
    )


def _bounded(settings: "StreamSettings", duration: float | None) -> "StreamSettings":
    """The settings with the length of the source, if it has one; ConfigError for a window that never closes without one."""
    from svlm_jax.cache.window import Lengths, ring_shape

    settings = dataclasses.replace(settings, duration=settings.duration or duration)
    nothing = Lengths(system=0, previous=0, label=0, query=0, reply=0, patches=0)
    ring_shape(settings.window, nothing, settings.chunk_seconds, settings.duration)
    return settings


def _open(arguments: argparse.Namespace, settings: "StreamSettings", pixels: "PixelBounds", start: float) -> "Source":
    from svlm_jax.video.source import open_source

    return open_source(
        arguments.source,
        fps=settings.fps,
        chunk_seconds=settings.chunk_seconds,
        pace="realtime" if arguments.realtime else "fast",
        behind=arguments.behind,
        sampling="published" if settings.parity else "pts",
        start=start,
        duration=arguments.duration,
        on_status=logging.getLogger(__name__).warning,
        **input_limits(arguments),
        **pixels,
    )


def _sinks(arguments: argparse.Namespace, session: "Session", source: "Source") -> "SinkGroup":
    """All outputs; text files of a resumed stream are continued."""
    import jax
    from rich.console import Console

    from svlm_jax.output import Status, Terminal, open_sinks

    device = jax.devices()[0]
    window = session.settings.window
    status = Status(
        model=session.vlm.name,
        source=source.info.name,
        window=f"{window.memory}: vision {window.vision:g} s, text {window.text:g} s, sink {window.sink}, tail {window.tail}",
        device=f"{device.platform} {device.device_kind}",
    )
    plain = Console(highlight=False, force_terminal=False) if arguments.no_live else None
    terminal = Terminal(status, plain)
    original = source.info.name if source.info.kind == "file" else None
    return open_sinks(
        terminal=terminal,
        vtt=arguments.vtt,
        srt=arguments.srt,
        jsonl=arguments.jsonl,
        video=arguments.video,
        original=original,
        append=bool(arguments.resume),
    )


def _save(session: "Session", folder: str) -> None:
    if session.chunks:
        session.save(folder)
