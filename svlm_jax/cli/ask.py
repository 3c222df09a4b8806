"""`svlm ask`: questions about a video stream, answered from a memory of fixed size; and the same beside `svlm watch`."""

import argparse
import contextlib
import dataclasses
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, get_args

from svlm_jax.cache.memory_config import MemoryConfig, Policy
from svlm_jax.cli.values import add_input_limits, add_source, input_limits, number
from svlm_jax.errors import ConfigError
from svlm_jax.host.progress import loading

if TYPE_CHECKING:
    from svlm_jax.prompt.qa import Answer
    from svlm_jax.streaming.qa_session import QASession, QASettings
    from svlm_jax.streaming.session import Session
    from svlm_jax.video.chunk import Chunk

EXAMPLES = """\
examples:
  svlm ask match.mp4 "Who scored first?" --model ./my-model                    asked when the video ends
  svlm ask match.mp4 "00:42 Who has the ball?" "1:30:00 And now?" --model ./my-model
  svlm ask match.mp4 "Which team won?" --choice red --choice blue --model ./my-model
  svlm ask match.mp4 "Who scored first?" --memory last-frames --model ./my-model     nothing but the last 4 frames
  svlm ask 'synthetic:facts?seed=3&minutes=5' "What was on the pink over yellow flag?" --model embedded-facts       no download

A question that begins with a time is asked at that time and reads what was seen before it."""

TYPED = "-"  # --ask - reads questions from the keyboard


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "ask",
        help="ask about a video file, URL, webcam or RTSP stream, however long it is",
        description="Watch a video stream into a memory of fixed size and answer questions from it.",
        epilog=EXAMPLES,
    )
    add_source(parser)
    parser.add_argument("questions", nargs="+", metavar="QUESTION", help='text, or a time and text: "00:42 Who scored first?"')
    parser.add_argument("--choice", action="append", metavar="TEXT", help="an option to choose from; repeat it for each")
    parser.add_argument("--jsonl", metavar="FILE", help="one JSON object an answer, written as it comes")
    model = parser.add_argument_group("model")
    model.add_argument("--model", required=True, metavar="FOLDER_OR_HUB_ID", help="a checkpoint, or embedded-facts")
    model.add_argument("--revision", metavar="NAME", help="branch, tag or commit of a hub id (default: its main branch)")
    model.add_argument("--dtype", choices=("auto", "bfloat16", "float32"), default="auto", help="of weights and memory (auto)")
    model.add_argument("--system", metavar="TEXT", help="system prompt")
    model.add_argument("--max-new-tokens", type=number(int, least=1), default=64, metavar="N", help="of an answer (64)")
    video = parser.add_argument_group("video")
    video.add_argument("--fps", type=number(float, above=0), default=0.5, help="frames per second that the model sees (0.5)")
    video.add_argument("--duration", type=number(float, above=0), metavar="SECONDS", help="how much to watch (all)")
    video.add_argument("--max-pixels", type=number(int, least=784), metavar="N", help="pixels of a frame at most (602112)")
    add_input_limits(video)
    _memory(parser.add_argument_group("memory"))
    return parser


def _memory(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--memory",
        choices=get_args(Policy),
        default=MemoryConfig.policy,
        help="what is kept and read: LiveVLM's (vsb+par, default), or what it is measured by",
    )
    group.add_argument("--budget", type=number(int, least=1), metavar="TOKENS", help="kept in all (12000)")
    group.add_argument("--clip", type=number(int, least=1), metavar="FRAMES", help="read at a time (32)")
    group.add_argument("--retrieve", type=number(float, above=0), metavar="SHARE", help="of the pages that vsb+par reads (0.4)")
    group.add_argument("--window", type=number(float, above=0), metavar="SECONDS", help="what the memory `window` keeps (16)")
    group.add_argument("--frames", type=number(int, least=1), metavar="N", help="what the memory `last-frames` keeps (4)")


def run(arguments: argparse.Namespace) -> int:
    """An answer below its question, with the time and what was read for it."""
    from rich.console import Console

    from svlm_jax.checkpoint.streaming_block import pixel_bounds
    from svlm_jax.host.compile_cache import keep_compiled
    from svlm_jax.host.files import check_distinct, check_target
    from svlm_jax.host.malloc import limit_arenas
    from svlm_jax.streaming.qa_session import QASession
    from svlm_jax.streaming.schedule import Schedule, timed
    from svlm_jax.streaming.vlm import StreamingVLM

    limit_arenas()
    keep_compiled()
    settings = _settings(arguments)
    if arguments.jsonl:
        check_distinct([check_target(arguments.jsonl)], [arguments.source, arguments.model])
    with loading(f"loading {arguments.model}") as progress:
        vlm = StreamingVLM.from_pretrained(
            arguments.model, dtype=arguments.dtype, revision=arguments.revision, progress=progress
        )
    recall, console = QASession(vlm, settings), Console(highlight=False)
    pixels = pixel_bounds(vlm.checkpoint.generation_config, arguments.max_pixels)
    with (
        recall.open(arguments.source, duration=arguments.duration, **input_limits(arguments), **pixels) as source,
        _records(arguments.jsonl) as record,
    ):

        def tell(answer: "Answer") -> None:
            show(console, recall, answer, arguments.choice)
            record(answer)

        schedule = Schedule(recall, [timed(text) for text in arguments.questions], tell, arguments.choice)
        for chunk in source:
            schedule.feed(chunk)
        schedule.finish()
    return 0


def show(console: Any, recall: "QASession", answer: "Answer", choices: list[str] | None) -> None:
    """A question, its answer, and the stretches of time that were read for it."""
    from rich.markup import escape

    from svlm_jax.streaming.schedule import clock, spans

    read = ", ".join(f"{clock(start)}-{clock(end)}" for start, end in spans(answer.seconds, recall.config.shape.seconds))
    console.print(f"[bold]{clock(answer.at)}  {escape(answer.question)}[/]")
    chosen = "" if choices is None or answer.choice is None else f". {choices[answer.choice]}"
    console.print(f"      {escape(answer.text + chosen)}")
    console.print(f"      [dim]{answer.first_token_ms:.0f} ms to the first token; read {read}[/]")


def _settings(arguments: argparse.Namespace) -> "QASettings":
    from svlm_jax.streaming.qa_session import QASettings

    memory = MemoryConfig.of(
        arguments.memory,
        budget=arguments.budget,
        clip_frames=arguments.clip,
        retrieve=arguments.retrieve,
        window=arguments.window,
        frames=arguments.frames,
    )
    settings = QASettings(memory=memory, fps=arguments.fps, max_new_tokens=arguments.max_new_tokens)
    return settings if arguments.system is None else dataclasses.replace(settings, system=arguments.system)


@contextlib.contextmanager
def _records(path: str | None) -> Iterator[Callable[["Answer"], None]]:
    """Writes answers into a file of JSON Lines, each as it comes, so that none is lost when the source breaks."""
    from svlm_jax.host.files import Appender

    if path is None:
        yield lambda answer: None
        return
    lines = Appender(path, fresh=True)
    yield lambda answer: lines.append(dataclasses.asdict(answer))


# ----------------------------------------------------------------------------------------------- beside `svlm watch`


def add_questions(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--ask",
        action="append",
        metavar="QUESTION",
        help='text, or a time and text ("00:42 Who scored first?"), asked beside the captions and about all that was seen; '
        "repeat it for more; - takes each line that is typed",
    )
    group.add_argument(
        "--remember", type=number(int, least=1), metavar="TOKENS", help=f"kept of the video for --ask ({MemoryConfig().budget})"
    )


class SideQuestions:
    """A memory that watches what a commentator watches, and answers without either of them noticing the other."""

    def __init__(self, recall: "QASession", questions: list[str]) -> None:
        from svlm_jax.streaming.schedule import Schedule, timed

        self.recall = recall
        self.schedule = Schedule(recall, [timed(text) for text in questions if text != TYPED], self._tell)
        self._typed: queue.SimpleQueue[str] = queue.SimpleQueue()
        if TYPED in questions:
            threading.Thread(target=self._listen, name="svlm-questions", daemon=True).start()

    def rehearse(self, chunk: "Chunk") -> None:
        """Compiles what a running stream will need, on a twin that is thrown away: whole clips, part of one, a question."""
        twin, seconds = self.recall.fork(), chunk.end - chunk.start
        for i in range(self.recall.settings.memory.clip_frames // len(chunk.frames) + 1):
            twin.feed(dataclasses.replace(chunk, start=i * seconds, end=(i + 1) * seconds))
        twin.ask("What is there?")

    def feed(self, chunk: "Chunk") -> None:
        """Remembers a chunk, and answers what is due, or was typed since the last one."""
        self.schedule.feed(chunk)
        while not self._typed.empty():
            self._tell(self.recall.ask(self._typed.get()))

    def finish(self) -> None:
        """Answers what was to be asked at the end."""
        self.schedule.finish()

    def _tell(self, answer: "Answer") -> None:
        from rich.console import Console

        show(Console(highlight=False), self.recall, answer, None)  # a live view draws itself below what is printed

    def _listen(self) -> None:
        for line in sys.stdin:
            if line.strip():
                self._typed.put(line.strip())


def check_questions(arguments: argparse.Namespace) -> None:
    if arguments.source in ("-", "/dev/stdin") and TYPED in (arguments.ask or ()):
        raise ConfigError("--ask - reads questions from standard input, where the video comes from; expected another source.")
    if arguments.remember is not None and not arguments.ask:
        raise ConfigError(f"--remember {arguments.remember} without --ask: nothing would read it, expected a question.")


def questions_beside(arguments: argparse.Namespace, session: "Session") -> SideQuestions | None:
    """What `--ask` wants; None without it."""
    from svlm_jax.streaming.qa_session import QASession, QASettings

    if not arguments.ask:
        return None
    budget = MemoryConfig().budget if arguments.remember is None else arguments.remember
    settings = QASettings(
        memory=MemoryConfig(budget=budget, clip_frames=8),
        fps=session.settings.fps,
        implementation=arguments.implementation,
    )
    return SideQuestions(QASession(session.vlm, settings), arguments.ask)
