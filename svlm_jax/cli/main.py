"""The command line: `svlm watch | ask | train | eval | serve | bench | convert | doctor | demo`."""

import argparse
import logging
import sys
import textwrap
import traceback
from collections.abc import Sequence
from importlib import metadata
from typing import Any, NoReturn

from svlm_jax.cli import ask, bench, convert, demo, doctor, eval, serve, train, watch
from svlm_jax.cli.help_text import HelpFormatter, columns
from svlm_jax.errors import SvlmError
from svlm_jax.host.files import one_sentence
from svlm_jax.host.redact import redact
from svlm_jax.host.signals import BOTH, Interrupted, interruptible
from svlm_jax.host.standard_streams import (
    READER_GONE,
    finish_output,
    is_reader_gone,
    is_standard_output,
    open_closed_streams,
    say,
)
from svlm_jax.host.xla_flags import set_gpu_flags

DESCRIPTION = """\
Streaming vision-language models: a model watches a video file, a URL, a webcam or an RTSP stream and says once a second what
happens, for as long as the video runs. Memory and time for a second stay the same however long that is."""

EXAMPLES = """\
examples:
  svlm demo                                                     see it run, without any download
  svlm watch match.mp4 --model mit-han-lab/StreamingVLM         live captions of a file in the terminal
  svlm watch 0 --model ./my-model --vtt captions.vtt            the first webcam, captions also as WebVTT
  svlm ask match.mp4 "Who scored?" --model ./my-model            a question about a video of any length
  svlm doctor --model qwen2.5-vl-7b                             would that model fit on this machine?
  svlm eval match --minutes 20                                  how good is the embedded model?
  svlm train configs/tiny.py loop.steps=100                     train a tiny model

exit codes:
  0    done
  1    a defect of svlm itself; with `svlm doctor --model`, the model does not fit
  2    something that you gave cannot work, and a sentence says what; with several sources, one of them failed
  42   training was told to stop, and has saved what it had
  130  stopped by Ctrl-C; the files are complete (143: by SIGTERM)"""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one sentence, like every other error here."""

    def _print_message(self, message: str, file: Any = None) -> None:
        """As argparse does, but an output that cannot be written is not taken for one that can."""
        if file is sys.stdout:
            file.write(message)
        else:
            say(message)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"svlm: {redact(message, sys.argv)} (`{self.prog} --help` explains)\n")


def parser() -> argparse.ArgumentParser:
    """The whole command line as argparse sees it."""
    top = Parser(prog="svlm", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=HelpFormatter, allow_abbrev=False)
    top.add_argument("--version", action="version", version=f"svlm-jax {metadata.version('svlm-jax')}")
    top.set_defaults(debug=False, signals=BOTH)
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    for command in (watch, ask, serve, train, eval, bench, convert, doctor, demo):
        sub = command.add(commands)
        sub.formatter_class, sub.allow_abbrev = HelpFormatter, False
        sub.add_argument("--debug", action="store_true", help="show tracebacks and all messages of svlm")
        sub.set_defaults(run=command.run)
    return top


def complain(sentence: object) -> None:
    """Say one sentence on stderr: on one line, but in a terminal broken between words, where it would be broken within them."""
    line = f"svlm: {' '.join(redact(str(sentence), sys.argv).split())}"
    if sys.stderr is not None and sys.stderr.isatty():
        line = textwrap.fill(line, columns(), subsequent_indent="      ", break_long_words=False, break_on_hyphens=False)
    say(f"{line}\n")


class Plain(logging.Formatter):
    """Messages of anybody, with the addresses in them masked."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record), sys.argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; user errors become one sentence on stderr and the code 2."""
    open_closed_streams()
    words = list(sys.argv[1:] if argv is None else argv)
    code = 0
    try:
        code = _run(words)
    except OSError as error:  # of --help; what a command raises has been explained
        code = _explain(error)
    finally:  # --help and --version leave by SystemExit
        failure = finish_output()
        if failure is not None and code == 0:
            raise SystemExit(_explain(failure))
    return code


def _run(words: list[str]) -> int:
    arguments = parser().parse_args(words, argparse.Namespace(words=words))
    set_gpu_flags()
    handler = logging.StreamHandler()
    handler.setFormatter(Plain("svlm: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.raiseExceptions = arguments.debug  # a log that nobody can read is no reason for a traceback
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
            say(redact(traceback.format_exc(), sys.argv) + "\n")
        return _explain(error)


def _explain(error: Exception) -> int:
    """Says what went wrong, and returns the exit code."""
    if is_reader_gone(error):
        return READER_GONE
    if is_standard_output(error):
        complain(f"the output cannot be written: {one_sentence(error)}.")
        return 2
    if isinstance(error, SvlmError | NotImplementedError):  # the latter from a kernel that was asked for by name
        complain(error)
        return 2
    complain(f"unexpected {type(error).__name__}: {error}; this is a defect: rerun with --debug to see where")
    return 1
