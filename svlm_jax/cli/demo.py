"""`svlm demo`: the embedded model commentates on a match that it has never seen."""

import argparse
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from svlm_jax.cli import watch
from svlm_jax.cli.values import number

if TYPE_CHECKING:
    from svlm_jax.host.progress import Stages

# A paragraph is one line: the terminal decides where it is broken.
BEFORE = (
    "A ball game is drawn from seed {seed}, red against blue. The model in this package, of 2.7 million parameters, has never "
    "seen it. It watches, and says once a second what happens; the score stands on a board only when a game begins, so that it "
    "has to be remembered. This is the command:\n\n  {command}\n"
)
AFTER = """\
Compared with what really happens in the match, where 1.00 is perfect: {verdict}.

With real weights: {svlm} watch YOUR_VIDEO --model mit-han-lab/StreamingVLM"""
# Where svlm is not on the path, as after `make demo`, which installs it into .venv.
OFF_PATH = "{svlm} is not on the path: `source {activate}` puts it there, or call it by this name."


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "demo",
        help="watch the embedded model commentate, without any download",
        description="Draw a match, stream it through the embedded model by the same code that `svlm watch` uses, as fast as it "
        "goes, and judge what was said against the truth.",
    )
    parser.add_argument(
        "--output", default="demo-output", metavar="FOLDER", help="folder for the video and the captions (default: demo-output)"
    )
    parser.add_argument(
        "--seconds", type=number(int, least=2), default=120, metavar="SECONDS", help="length of the match (default: 120)"
    )
    parser.add_argument("--seed", type=number(int, least=0), default=1, help="which match to draw (default: 1)")
    parser.add_argument("--no-live", action="store_true", help="print a plain line for each caption instead of the live view")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Draw, say what happens, hand over to `svlm watch`, and judge."""
    from svlm_jax.host.progress import Stages, prose

    console = prose()
    with Stages("starting") as stages:
        match = _draw(arguments, stages)
    folder, seed, svlm = match.parent, arguments.seed, command_name()
    files = {kind: folder / f"captions.{kind}" for kind in ("vtt", "srt", "jsonl")} | {"video": folder / "captioned.mp4"}
    command = ["watch", str(match), "--model", "embedded", "--no-split-timings"]
    for kind, path in files.items():
        command += [f"--{kind}", str(path)]
    command += ["--no-live"] * arguments.no_live
    console.print(BEFORE.format(seed=seed, command=shlex.join([svlm, *command])), markup=False)
    watch.follow(watch.parse(command))
    from svlm_jax.cli import demo_match as demo

    console.print(AFTER.format(verdict=demo.verdict(demo.judge(files["jsonl"], seed)), svlm=svlm), markup=False)
    if svlm != "svlm":
        console.print(OFF_PATH.format(svlm=svlm, activate=Path(svlm).with_name("activate")), markup=False)
    return 0


def command_name() -> str:
    """How this command can be called again: "svlm" where the shell finds this very one, else its path."""
    own = Path(sys.argv[0])
    if own.name != "svlm" or not own.is_file():
        return "svlm"  # called in another way, such as `python -m svlm_jax`
    found = shutil.which("svlm")
    if found is not None and Path(found).resolve() == own.resolve():
        return "svlm"
    try:
        return str(own.resolve().relative_to(Path.cwd().resolve()))
    except ValueError:
        return str(own)


def _draw(arguments: argparse.Namespace, stages: "Stages") -> Path:
    """The video of the match, drawn now if it is not there yet."""
    from svlm_jax.checkpoint import hf
    from svlm_jax.cli import demo_match as demo
    from svlm_jax.errors import ConfigError

    hf.resolve(hf.EMBEDDED)
    folder = Path(arguments.output)
    stages.enter("drawing the match")
    try:
        return demo.prepare(folder, arguments.seconds, arguments.seed)
    except OSError as error:
        raise ConfigError(f"cannot write the demo into {folder}: {error.strerror or error}") from error
