"""Makes training data of a folder of videos with transcripts beside them (.json of WhisperX, .srt or .vtt of the same name):

    python -m launch.annotate games train_s12w24_with_seeks.jsonl                                  overlapped chunks, stage 1
    python -m launch.annotate games train_fg_with_seeks.jsonl --annealing                          dense clips, stage 2
    python -m launch.annotate games out_with_seeks.jsonl --endpoint http://localhost:8000/v1 --model NAME --live-share 0.8

With an endpoint (OpenAI-compatible; the key is the environment's OPENAI_API_KEY) its model first keeps, edits or deletes every
sentence. What cannot be read is named and left out. Exit codes: 0 done, 2 something given does not fit (a sentence says what).
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from svlm_jax.errors import ConfigError, DataError, SvlmError
from svlm_jax.host.standard_streams import say

if TYPE_CHECKING:
    from svlm_jax.data.curate import Curator
    from svlm_jax.data.windows import Annealing, Overlapped


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the annotations; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}.annotate", description="Training data from videos and transcripts."
    )
    parser.add_argument("folder", help="with the videos, also in subfolders")
    parser.add_argument("output", help="file of annotations to write, such as train_with_seeks.jsonl")
    parser.add_argument("--seconds", type=float, help="of a chunk (default 24), or of the longest clip of --annealing (64)")
    parser.add_argument("--stride", type=float, help="seconds from the start of one chunk to that of the next (default 12)")
    parser.add_argument("--words", type=float, default=2.0, help="least words a second of a chunk or clip (default 2)")
    parser.add_argument("--annealing", action="store_true", help="clips of 16 to 64 s without overlap or long silence instead")
    parser.add_argument("--encoding", metavar="NAME", help="of subtitles that are neither UTF-8 nor UTF-16, e.g. gb18030")
    parser.add_argument("--endpoint", metavar="URL", help="of a language model that cleans the transcripts")
    parser.add_argument("--model", metavar="NAME", help="of the language model there")
    parser.add_argument("--live-share", type=float, metavar="SHARE", help="keep what is told live by more than this, 0 to 1")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="svlm: %(message)s")
    try:
        say(f"{_annotate(arguments)}\n")
    except SvlmError as error:
        say(f"svlm: {' '.join(str(error).split())}\n")
        return 2
    return 0


def _annotate(arguments: argparse.Namespace) -> str:
    """Does it, and says what it did."""
    from svlm_jax.data.transcripts import annotate_folder

    rule, curator, least = _rule(arguments), _curator(arguments), arguments.live_share
    count = annotate_folder(
        arguments.folder,
        arguments.output,
        rule,
        curate=None if curator is None else curator.clean,
        keep=None if curator is None or least is None else lambda clip: curator.live_share(clip) > least,
        encoding=arguments.encoding,
    )
    if not count:
        raise DataError(f"{arguments.output} holds no samples: no chunk of {arguments.folder} has words enough.")
    judged = "" if curator is None else "; sentences: " + ", ".join(f"{n:,} {verdict}" for verdict, n in curator.counts.items())
    samples = "1 sample is" if count == 1 else f"{count:,} samples are"
    return f"{samples} in {arguments.output}{judged}"


def _rule(arguments: argparse.Namespace) -> "Overlapped | Annealing":
    from svlm_jax.data.windows import Annealing, Overlapped

    given = {name: value for name in ("seconds", "stride") if (value := getattr(arguments, name)) is not None}
    if not arguments.annealing:
        return Overlapped(**given, words_per_second=arguments.words)
    if "stride" in given:
        raise ConfigError("--annealing makes clips without overlap, which have no --stride.")
    longest = {"longest": given["seconds"]} if given else {}
    return Annealing(**longest, words_per_second=arguments.words)


def _curator(arguments: argparse.Namespace) -> "Curator | None":
    from svlm_jax.data.curate import Curator
    from svlm_jax.host.chat_client import Endpoint
    from svlm_jax.host.redact import mask

    if not arguments.endpoint:
        if arguments.model or arguments.live_share is not None:
            raise ConfigError("--model and --live-share are about the language model of an --endpoint, and none is given.")
        return None
    if not arguments.model:
        raise ConfigError(f"--endpoint {mask(arguments.endpoint)} needs the --model there that is asked.")
    return Curator(Endpoint(arguments.endpoint, arguments.model))


if __name__ == "__main__":
    sys.exit(main())
