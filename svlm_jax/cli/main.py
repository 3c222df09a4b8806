"""The command line: `svlm watch | ask | train | eval | bench | convert | doctor | demo`."""

import argparse
import logging
import sys
import traceback
from collections.abc import Sequence
from importlib import metadata
from typing import NoReturn

from svlm_jax.cli import ask, bench, convert, demo, doctor, eval, train, watch
from svlm_jax.errors import SvlmError
from svlm_jax.host.redact import redact
from svlm_jax.host.signals import BOTH, Interrupted, interruptible

DESCRIPTION = """\
Streaming vision-language models: a video file, URL, webcam or RTSP stream goes in; once a second the model speaks;
captions come out, for as long as the video runs, at constant memory and constant latency."""

EXAMPLES = """\
examples:
  svlm demo                                                     see it run, without any download
  svlm watch match.mp4 --model mit-han-lab/StreamingVLM         live captions of a file in the terminal
  svlm watch 0 --model ./my-model --vtt captions.vtt            the first webcam, captions also as WebVTT
  svlm ask match.mp4 "Who scored?" --model ./my-model            a question about all of it, at any length
  svlm doctor --model qwen2.5-vl-7b                             would that model fit on this machine?
  svlm eval match --minutes 20                                  how good is the embedded model?
  svlm train configs/tiny.py loop.steps=100                     learn to stream

exit codes: 0 done, 2 something you gave does not fit (one sentence says what), 130 and 143 stopped by Ctrl-C and by
SIGTERM (the files are complete), 42 training was told to stop and has saved, 1 a defect of svlm itself."""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one sentence, like every other error here."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"svlm: {redact(message, sys.argv)} (`{self.prog} --help` explains)\n")


def parser() -> argparse.ArgumentParser:
    """The whole command line as argparse sees it."""
    style = argparse.RawDescriptionHelpFormatter
    top = Parser(prog="svlm", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=style, allow_abbrev=False)
    top.add_argument("--version", action="version", version=f"svlm-jax {metadata.version('svlm-jax')}")
    top.set_defaults(debug=False, signals=BOTH)
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    for command in (watch, ask, train, eval, bench, convert, doctor, demo):
        sub = command.add(commands)
        sub.formatter_class, sub.allow_abbrev = style, False
        sub.add_argument("--debug", action="store_true", help="show tracebacks and all messages of svlm")
        sub.set_defaults(run=command.run)
    return top


def complain(sentence: object) -> None:
    """Say one sentence on stderr, on one line, however long it is."""
    sys.stderr.write(f"svlm: {' '.join(redact(str(sentence), sys.argv).split())}\n")


class Plain(logging.Formatter):
    """Messages of anybody, with the addresses in them masked."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record), sys.argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; user errors become one sentence on stderr and the code 2."""
    words = list(sys.argv[1:] if argv is None else argv)
    arguments = parser().parse_args(words, argparse.Namespace(words=words))
    handler = logging.StreamHandler()
    handler.setFormatter(Plain("svlm: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    if arguments.debug:
        logging.getLogger("svlm_jax").setLevel(logging.DEBUG)
        logging.getLogger("pallas_kernels").setLevel(logging.DEBUG)
    try:
        with interruptible(arguments.signals):
            return arguments.run(arguments)
    except Interrupted as interrupted:
        complain(f"stopped by {interrupted.name}")
        return interrupted.exit_code
    except Exception as error:
        if arguments.debug:
            sys.stderr.write(redact(traceback.format_exc(), sys.argv))
        if isinstance(error.__cause__, BrokenPipeError):
            return 141  # SIGPIPE: whoever read our output has gone (`svlm watch ... | head`) and needs no sentence
        if isinstance(error, SvlmError | NotImplementedError):  # the latter from a kernel that was asked for by name
            complain(error)
            return 2
        complain(f"unexpected {type(error).__name__}: {error}; this is a defect: rerun with --debug to see where")
        return 1
