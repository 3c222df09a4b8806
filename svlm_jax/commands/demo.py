"""`svlm demo`: the whole path of one second, on any machine, without a download."""

import argparse
import shlex
from pathlib import Path

from svlm_jax.commands.values import number

BEFORE = """\
The model of this demo has random weights: [bold]its words are noise[/bold]. What is real is everything around them: the
checkpoint is loaded from its files, the clip is decoded, one compiled program a second sees it, speaks and forgets, and
the captions are written. It is this command:

  {command}
"""
AFTER = """
Written: {files}.
The first seconds take longer, because the program is compiled then; after that every second costs the same, however long
the stream. With real weights: svlm watch YOUR_VIDEO --model mit-han-lab/StreamingVLM"""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "demo",
        help="see it run without any download",
        description="Render a short clip, write a small model with random weights, and stream the one through the other by "
        "the same code that `svlm watch` uses. Random weights say random words: the demo shows the machinery, not the skill.",
    )
    parser.add_argument("--output", default="demo-output", metavar="FOLDER", help="where everything goes (demo-output)")
    parser.add_argument("--seconds", type=number(int, least=2), default=30, metavar="N", help="length of the clip (30)")
    parser.add_argument("--seed", type=number(int, least=0), default=0, help="of clip, weights and words (0)")
    parser.add_argument("--no-live", action="store_true", help="one plain line a caption instead of the live view")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Prepare, say what happens, and hand over to `svlm watch`."""
    from rich.console import Console
    from rich.markup import escape

    from svlm_jax import cli
    from svlm_jax.demo import prepare
    from svlm_jax.errors import ConfigError

    folder = Path(arguments.output)
    try:
        clip, model = prepare(folder, arguments.seconds, arguments.seed)
    except OSError as error:
        raise ConfigError(f"cannot write the demo into {folder}: {error.strerror or error}") from error
    files = {"vtt": folder / "captions.vtt", "srt": folder / "captions.srt", "jsonl": folder / "captions.jsonl"}
    files["video"] = folder / "captioned.mp4"
    command = ["watch", str(clip), "--model", str(model), "--seed", str(arguments.seed)]
    command += ["--window", "vision=8,text=8,sink=64,tail=64"]  # small, so that forgetting begins within the clip
    for kind, path in files.items():
        command += [f"--{kind}", str(path)]
    command += ["--no-live"] * arguments.no_live
    console = Console(soft_wrap=True)
    console.print(BEFORE.format(command=escape(shlex.join(["svlm", *command]))), highlight=False)
    watch = cli.parser().parse_args(command)
    code = watch.run(watch)
    console.print(AFTER.format(files=escape(", ".join(str(path) for path in files.values()))), highlight=False)
    return code
