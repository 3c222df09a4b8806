"""`svlm eval`: a model measured on a benchmark."""

import argparse

from svlm_jax.cli import eval_match, eval_published
from svlm_jax.cli.help_text import HelpFormatter

EXAMPLES = """\
examples:
  svlm eval match --minutes 20 --json match.json                        the embedded model on a match that it has not seen
  svlm eval match --seed 7 --cache full --minutes 10                    the same weights with everything in memory
  svlm eval ovo-bench --data ./ovo-bench --model ./my-model             a published benchmark: questions as a video runs
  svlm eval match --help                                                what one benchmark takes"""

# Name of a benchmark -> its module: `add(benchmarks, name)` describes the arguments, `run(arguments)` measures.
BENCHMARKS = {"match": eval_match, **dict.fromkeys(eval_published.NAMES, eval_published)}


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "eval",
        help="measure a model on a benchmark",
        description="Measure a model on a benchmark.",
        epilog=EXAMPLES,
    )
    benchmarks = parser.add_subparsers(title="benchmarks", metavar="BENCHMARK", dest="benchmark", required=True)
    for name, module in BENCHMARKS.items():
        one = module.add(benchmarks, name)
        one.formatter_class, one.allow_abbrev = HelpFormatter, False
        one.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser


def run(arguments: argparse.Namespace) -> int:
    return BENCHMARKS[arguments.benchmark].run(arguments)
