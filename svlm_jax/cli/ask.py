"""`svlm ask`: questions about a video stream, answered from a memory of fixed size."""

import argparse
import dataclasses
from typing import TYPE_CHECKING

from svlm_jax.cache.policies import memory_policy
from svlm_jax.cli import options
from svlm_jax.cli.values import number

if TYPE_CHECKING:
    from svlm_jax.prompt.qa import Answer
    from svlm_jax.streaming.qa_session import QASettings

EXAMPLES = f"""\
examples:
  svlm ask match.mp4 "Who scored first?" --model ./my-model                    asked when the video ends
  svlm ask match.mp4 "00:42 Who has the ball?" "1:30:00 And now?" --model ./my-model
  svlm ask match.mp4 "Which team won?" --choice red --choice blue --model ./my-model
  svlm ask match.mp4 "Who scored first?" --memory last-frames,frames=8 --model ./my-model   nothing but the last 8 frames
  svlm ask match.mp4 "Who scored first?" --memory vsb+par,budget=6000 --model ./my-model    half the memory
  svlm ask 'synthetic:facts?seed=3&minutes=5' "What was on the pink over yellow flag?" --model embedded-facts

A question that begins with a time is asked at that time and reads what was seen before it.

{options.MODEL}"""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "ask",
        help="ask about a video file, URL, webcam or RTSP stream, however long it is",
        description="Watch a video stream into a memory of fixed size and answer questions from it.",
        epilog=EXAMPLES,
    )
    options.add_source(parser)
    parser.add_argument(
        "questions", nargs="+", metavar="QUESTION", help='a question, or a time and a question: "00:42 Who scored first?"'
    )
    parser.add_argument(
        "--choice", action="append", metavar="TEXT", help="an answer to choose from; repeat the option for each answer"
    )
    parser.add_argument("--jsonl", metavar="FILE", help="write a JSON object for each answer, as soon as it is there")
    model = parser.add_argument_group("model")
    options.add_model(model)
    options.add_running(model)
    options.add_system(model)
    model.add_argument(
        "--max-new-tokens", type=number(int, least=1), default=64, metavar="N", help="most tokens of an answer (default: 64)"
    )
    options.add_video(parser.add_argument_group("video"), fps=0.5)
    memory = parser.add_argument_group("memory")
    options.add_memory(memory, why="what is kept of the video and read for an answer", default=memory_policy())
    return parser


def run(arguments: argparse.Namespace) -> int:
    """An answer below its question, with the time and what was read for it."""
    from svlm_jax.host.progress import Stages, prose

    with Stages("starting") as stages:
        from svlm_jax.cli.stream_spec import ModelSpec, SourceSpec, warn_of_unknown_video
        from svlm_jax.host.compile_cache import keep_compiled
        from svlm_jax.host.files import check_distinct, check_target
        from svlm_jax.host.malloc import limit_arenas
        from svlm_jax.output import AnswerRecord, Terminal, open_sinks
        from svlm_jax.streaming.qa_session import QASession
        from svlm_jax.streaming.schedule import Schedule, timed

        limit_arenas()
        keep_compiled(arguments.compile_cache)
        settings, video = _settings(arguments), SourceSpec.of(arguments, arguments.source)
        if arguments.jsonl:
            check_distinct([check_target(arguments.jsonl)], [arguments.source, arguments.model])
        vlm = ModelSpec.of(arguments).load(stages)
        recall = QASession(vlm, settings)
        stages.enter(f"opening {arguments.source}")
        with recall.open(arguments.source, **video.options(0.0)) as source:
            warn_of_unknown_video(vlm.name, arguments.source)
            terminal = Terminal(console=prose(), live=False)
            with open_sinks(terminal=terminal, jsonl=arguments.jsonl) as sink:

                def tell(answer: "Answer") -> None:
                    with stages.aside():
                        sink.answer(AnswerRecord.of(answer, recall.config.shape.seconds, arguments.choice))

                schedule = Schedule(recall, [timed(text) for text in arguments.questions], tell, arguments.choice)
                begin, end = video.span(source, 0.0)
                stages.enter("watching")
                for chunk in source:
                    schedule.feed(chunk)
                    if end is not None:
                        stages.move(recall.position - begin, end - begin)
                stages.enter("answering")
                schedule.finish()
    return 0


def _settings(arguments: argparse.Namespace) -> "QASettings":
    from svlm_jax.streaming.qa_session import QASettings

    settings = QASettings(
        memory=arguments.memory or memory_policy(),
        fps=arguments.fps,
        max_pixels=arguments.max_pixels,
        max_new_tokens=arguments.max_new_tokens,
        implementation=arguments.implementation,
        cache_dtype=arguments.cache_dtype,
    )
    return settings if arguments.system is None else dataclasses.replace(settings, system=arguments.system)
