"""Trains: `python -m launch.train configs/sft_stage1.py name=value ...` is `svlm train`, for every process of a cluster.

Exit codes: 0 finished, 42 preempted (saved, to be started again), 2 something given does not fit (one sentence says what).
"""

import sys
from collections.abc import Sequence

from svlm_jax.cli import main as cli
from svlm_jax.cli.train import PREEMPTED
from svlm_jax.errors import SvlmError

from . import cluster

__all__ = ["PREEMPTED", "main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs, or exports, what the arguments name; returns the exit code."""
    command = ["train", *(sys.argv[1:] if argv is None else argv)]
    cli.parser().parse_args(command)  # a wrong command line is said before the others are waited for
    try:
        here = cluster.join()
    except SvlmError as error:
        cli.complain(error)
        return 2
    try:
        return cli.main(command)
    finally:
        cluster.leave(here)


if __name__ == "__main__":
    sys.exit(main())
