"""`svlm watch`: a video stream in, captions out."""

import argparse
import contextlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from svlm_jax.cli import options, watch_several
from svlm_jax.cli.side_questions import SideQuestions, add_questions, check_questions, questions_beside
from svlm_jax.host.signals import Stoppable

if TYPE_CHECKING:
    from svlm_jax.cli.stream_spec import StreamSpec
    from svlm_jax.host.progress import Stages
    from svlm_jax.output import Tally, Terminal
    from svlm_jax.streaming.session import Session
    from svlm_jax.video.source import Source

EXAMPLES = f"""\
examples:
  svlm watch match.mp4 --model mit-han-lab/StreamingVLM
  svlm watch 'synthetic:match?seed=5&minutes=2' --model embedded        a drawn match, and the model that knows it
  svlm watch 0 --model ./my-model                                       the first webcam
  svlm watch rtsp://user:secret@camera/stream --model ./my-model --jsonl log.jsonl --no-live
  svlm watch match.mp4 --model ./my-model --realtime --behind merge     as if the file were live
  svlm watch match.mp4 --model ./my-model --window vision=8,text=16     8 s of frames, 16 s of words beside them
  svlm watch match.mp4 --model ./my-model --ask "00:42 Who scored first?"  asked and answered beside the captions
  svlm watch match.mp4 --model ./my-model --ask -                       questions typed into the live view
  svlm watch 0 1 hall.mp4 --model ./my-model --jsonl logs               three sources side by side
  svlm watch match.mp4 --model ./my-model --duration 60 --save-state here
  svlm watch match.mp4 --model ./my-model --resume here                 goes on where the line above stopped

Several sources are watched side by side with one model, each in a cache of its own, and each gets the captions that it would
get alone. A source has a name, which stands before its captions: match.mp4 is match, webcam 0 is camera-0. --vtt, --srt,
--jsonl and --video then name folders, in which each source has a file of its name. A source that ends or fails leaves the
others alone; the exit code is 2 when one has failed. --ask, --save-state and --resume take one source only.

{options.MODEL}

{options.WINDOW}"""
FILES = ("vtt", "srt", "jsonl", "video")


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "watch",
        help="caption a video file, URL, webcam or RTSP stream",
        description="Watch a video stream and say, once a second, what happens.",
        epilog=EXAMPLES,
    )
    options.add_sources(parser)
    model = parser.add_argument_group("model")
    options.add_model(model)
    options.add_running(model)
    video = parser.add_argument_group("video")
    options.add_video(video, fps=2.0)
    options.add_chunk(video)
    cache = parser.add_argument_group("cache")
    options.add_window(cache)
    cache.add_argument("--save-state", metavar="FOLDER", help="when watching ends, save the stream so that it can go on later")
    cache.add_argument(
        "--resume", metavar="FOLDER", help="go on with a saved stream, under the settings that it was started with"
    )
    _speech(parser.add_argument_group("speech"))
    _output(parser.add_argument_group("output"))
    add_questions(parser.add_argument_group("questions"))
    return parser


def parse(words: list[str]) -> argparse.Namespace:
    """The arguments of `svlm watch ...`, for commands that hand over to it."""
    parser = argparse.ArgumentParser(prog="svlm")
    add(parser.add_subparsers())
    return parser.parse_args(words, argparse.Namespace(words=words))


def _speech(group: argparse._ArgumentGroup) -> None:
    options.add_prompt(group)
    group.add_argument("--previous-text", metavar="TEXT", help="what was said before the stream begins")
    options.add_sampling(group)
    group.add_argument(
        "--parity",
        action="store_true",
        default=None,
        help="reproduce the published code with its known defects (docs/decisions.md)",
    )


def _output(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--vtt", metavar="FILE", help="write captions as WebVTT, and answers as notes in it")
    group.add_argument("--srt", metavar="FILE", help="write captions as SRT, and answers as captions of their own")
    group.add_argument(
        "--jsonl", metavar="FILE", help="write a JSON object for each chunk, silent ones included, and for each answer"
    )
    group.add_argument("--video", metavar="FILE", help="write a copy of the video with captions and answers drawn into it")
    group.add_argument("--no-live", action="store_true", help="print a plain line for each caption instead of the live view")
    group.add_argument(
        "--split-timings",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="measure vision, prefill and decoding separately, for which each second runs as three programs (default: in the "
        "live view)",
    )


def given(words: Sequence[str]) -> list[str]:
    """The names of the options that a command line holds, whatever they would be without it."""
    parser = argparse.ArgumentParser(prog="svlm", argument_default=argparse.SUPPRESS, exit_on_error=False)
    for action in add(parser.add_subparsers())._actions:
        action.default = argparse.SUPPRESS
    found = vars(parser.parse_known_args(list(words))[0])
    return [name.replace("_", "-") for name in found] + [f"window {part}" for part in found.get("window", ())]


def run(arguments: argparse.Namespace) -> int:
    if len(arguments.sources) > 1:
        return watch_several.follow(arguments, given(arguments.words))
    follow(arguments)
    return 0


def follow(arguments: argparse.Namespace) -> "Tally":
    """Watch one source until it ends or a signal comes; every file is complete afterwards. Returns what was counted."""
    from svlm_jax.host.progress import Stages

    with Stages("starting") as stages:  # the first sign of life: what is imported from here on takes seconds
        from svlm_jax.cli import stream_spec
        from svlm_jax.host.compile_cache import keep_compiled
        from svlm_jax.host.files import check_distinct, check_target
        from svlm_jax.host.folders import check_outside, check_replaceable
        from svlm_jax.host.malloc import limit_arenas
        from svlm_jax.streaming.saved import is_stream

        limit_arenas()
        keep_compiled(arguments.compile_cache)
        if arguments.split_timings is None:  # only the live view shows the parts of a second
            arguments.split_timings = not arguments.no_live and sys.stdout.isatty()
        check_questions(arguments)
        (where,) = arguments.sources
        spec = stream_spec.StreamSpec.of(arguments, where, given(arguments.words))
        files = [path for kind in FILES if (path := getattr(arguments, kind))]
        outputs = [check_target(path) for path in files] + [arguments.save_state] * bool(arguments.save_state)
        check_distinct(outputs, [where, arguments.model])
        for folder in filter(None, (arguments.save_state, arguments.resume)):
            check_outside(outputs, folder)
        if arguments.save_state:
            check_replaceable(arguments.save_state, is_stream)
        stages.enter(f"opening {where}")
        spec, source = spec.open()  # what cannot work is said before minutes of loading
        with source:
            stream_spec.warn_of_unknown_video(spec.model.name, where)
            vlm = spec.model.load(stages)
            session = spec.session(vlm)
            asked = questions_beside(arguments, session)
            return _watch(arguments, spec, session, source, asked, stages)


def _watch(
    arguments: argparse.Namespace,
    spec: "StreamSpec",
    session: "Session",
    source: "Source",
    asked: SideQuestions | None,
    stages: "Stages",
) -> "Tally":
    from svlm_jax.host.progress import prose
    from svlm_jax.output import Tally

    files = [path for kind in FILES if (path := getattr(arguments, kind))]
    tally = Tally(files)
    with contextlib.ExitStack() as stack:
        if source.info.live or spec.video.pace == "realtime":
            _rehearse(session, source, asked, stages)
        chunks = stack.enter_context(Stoppable(iter(source)))  # left last: signals must not tear what follows apart
        stages.enter("waiting for video")
        first = next(chunks, None)
        stages.enter("compiling")
        if first is not None:
            if asked is not None:
                asked.prepare(first)
            caption = session.feed(first)
        stages.stop()
        terminal = _terminal(arguments, spec, session, source, asked)
        sink = stack.enter_context(_sinks(arguments, terminal, tally, source))
        if arguments.save_state:
            stack.callback(_save, session, arguments.save_state)
        if asked is not None:
            asked.show(terminal, sink, spec.span(source)[1])
        chunk = first
        while chunk is not None:
            sink.write(caption, chunk.frames)
            if asked is not None:
                terminal.stage("answering")
                asked.feed(chunk)
            terminal.stage("waiting for video")
            chunk = next(chunks, None)
            if chunk is not None:
                terminal.stage("captioning")
                caption = session.feed(chunk)
        if asked is not None and not chunks.interrupted:
            asked.finish()
    console = prose(stderr=True)
    with contextlib.suppress(OSError):  # a summary that nobody can read is no reason to fail
        for line in tally.lines():
            console.print(line, markup=False)
    if chunks.interrupted:
        raise chunks.interrupted
    return tally


def _rehearse(session: "Session", source: "Source", asked: SideQuestions | None, stages: "Stages") -> None:
    """Compiles with the first chunk before a stream runs that cannot wait, so that no second of it is lost."""
    stages.enter("waiting for video")
    chunk = source.peek()
    if chunk is not None:
        stages.enter("compiling")
        session.fork().feed(chunk)
        if asked is not None:
            asked.rehearse(chunk)


def _terminal(
    arguments: argparse.Namespace,
    spec: "StreamSpec",
    session: "Session",
    source: "Source",
    asked: SideQuestions | None,
) -> "Terminal":
    from svlm_jax.output import Terminal

    status = spec.status(source, source.info.name)
    ask = asked.typed if asked is not None and asked.listens else None
    return Terminal(status, ask=ask, live=not arguments.no_live)


def _sinks(
    arguments: argparse.Namespace, terminal: "Terminal", tally: "Tally", source: "Source"
) -> contextlib.AbstractContextManager:
    """All outputs; text files of a resumed stream are continued."""
    from svlm_jax.output import open_sinks

    original = source.info.name if source.info.kind == "file" else None
    files = {kind: getattr(arguments, kind) for kind in FILES}
    return open_sinks(terminal=terminal, tally=tally, **files, original=original, append=bool(arguments.resume))


def _save(session: "Session", folder: str) -> None:
    if session.chunks:
        session.save(folder)
