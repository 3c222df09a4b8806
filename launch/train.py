"""Trains: `python -m launch.train configs/sft_stage1.py optimizer.learning_rate=2e-5`.

Exit codes: 0 finished, 42 preempted (saved, to be started again), 2 something given does not fit (one sentence says what).
"""

import argparse
import logging
import sys
from collections.abc import Sequence

from rich.console import Console

from launch import cluster
from svlm_jax.errors import SvlmError

PREEMPTED = 42


def main(argv: Sequence[str] | None = None) -> int:
    """Runs, or exports, what the arguments name; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m launch.train", description="Train a streaming vision-language model.")
    parser.add_argument("config", help="Python file with get_config(), such as configs/tiny.py")
    parser.add_argument("changes", nargs="*", metavar="name=value", help="fields to change, such as loop.steps=100")
    parser.add_argument("--export", metavar="FOLDER", help="write the newest checkpoint as a Hugging Face folder, and leave")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="svlm: %(message)s")
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        here = cluster.join()
        try:
            return _train(arguments, console)
        finally:
            cluster.leave(here)
    except SvlmError as error:
        console.print(f"svlm: {' '.join(str(error).split())}", markup=False)
        return 2


def _train(arguments: argparse.Namespace, console: Console) -> int:
    from svlm_jax.train.config import load_config
    from svlm_jax.train.run import export_run, run

    def say(line: str) -> None:
        console.print(line, markup=False)

    config = load_config(arguments.config, arguments.changes)
    if arguments.export is not None:
        step = export_run(config, arguments.export)
        say(f"step {step:,} of {config.name} is in {arguments.export}")
        return 0
    outcome = run(config, say)
    say(f"{config.name} {outcome}")
    return PREEMPTED if outcome == "preempted" else 0


if __name__ == "__main__":
    sys.exit(main())
