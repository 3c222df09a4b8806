"""`svlm demo`: the embedded model commentates on a match that it has never seen."""

import argparse
import shlex
from pathlib import Path

from svlm_jax.cli.values import number

BEFORE = """\
A ball game is drawn from seed {seed}, red against blue. The model in this package, of 2.7 million parameters, has never seen
it. Pictures go in, and once a second it says what happens; the score stands on a board only when a game begins, so it has to
be remembered. It is this command:

  {command}
"""
AFTER = """
{seconds:.0f} seconds of the match in {wall:.1f} s, {speed:.0f} a second (without the first, in which programs are compiled).
Against the truth: {verdict}.
Written: {files}.
With real weights: svlm watch YOUR_VIDEO --model mit-han-lab/StreamingVLM"""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "demo",
        help="watch the embedded model commentate, without any download",
        description="Draw a match, stream it through the embedded model by the same code that `svlm watch` uses, as fast as it "
        "goes, and judge what was said against the truth.",
    )
    parser.add_argument("--output", default="demo-output", metavar="FOLDER", help="where everything goes (demo-output)")
    parser.add_argument("--seconds", type=number(int, least=2), default=120, metavar="N", help="of the match (120)")
    parser.add_argument("--seed", type=number(int, least=0), default=1, help="which match (1)")
    parser.add_argument("--no-live", action="store_true", help="one plain line a caption instead of the live view")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Draw, say what happens, hand over to `svlm watch`, and judge."""
    from rich.console import Console
    from rich.markup import escape

    from svlm_jax.checkpoint import hf
    from svlm_jax.cli import demo_match as demo
    from svlm_jax.cli import watch
    from svlm_jax.errors import ConfigError

    hf.resolve(hf.EMBEDDED)
    folder, seed = Path(arguments.output), arguments.seed
    try:
        match = demo.prepare(folder, arguments.seconds, seed)
    except OSError as error:
        raise ConfigError(f"cannot write the demo into {folder}: {error.strerror or error}") from error
    files = {"vtt": folder / "captions.vtt", "srt": folder / "captions.srt", "jsonl": folder / "captions.jsonl"}
    files["video"] = folder / "captioned.mp4"
    command = ["watch", str(match), "--model", hf.EMBEDDED, "--no-split-timings"]
    for kind, path in files.items():
        command += [f"--{kind}", str(path)]
    command += ["--no-live"] * arguments.no_live
    console = Console(soft_wrap=True, highlight=False)
    console.print(BEFORE.format(seed=seed, command=escape(shlex.join(["svlm", *command]))))
    seconds, wall = watch.follow(watch.parse(command))
    said = {
        "seconds": seconds,
        "wall": wall,
        "speed": seconds / max(wall, 1e-3),
        "verdict": demo.verdict(demo.judge(files["jsonl"], seed)),
        "files": escape(", ".join(str(path) for path in files.values())),
    }
    console.print(AFTER.format(**said))
    return 0
