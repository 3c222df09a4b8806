"""`svlm train`: one process that trains; `python -m launch.train` is the same for every process of a cluster."""

import argparse
import signal

from svlm_jax.host.standard_streams import say

PREEMPTED = 42
EXAMPLES = """\
examples:
  svlm train tiny                                                       a tiny model on drawn matches, on a CPU
  svlm train match loop.steps=2000 optimizer.learning_rate=1e-3
  svlm train match --export ./my-model                                  its newest checkpoint, for `--model ./my-model`
  svlm train sft_stage1 partition.lora.rank=16                          with LoRA adapters (docs/training.md)
  svlm train sft_stage1 partition.lora.rank=16 --export-adapter ./mine  the adapters alone, in the format of peft
  svlm train my_config.py                                               a file of your own

A run that is started again goes on after its newest checkpoint. SIGTERM or Ctrl-C saves, and ends it with exit code 42.
Training with several processes is explained in docs/training.md."""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "train",
        help="train a model to stream, or export what was trained",
        description="Train a streaming vision-language model with the settings of a configuration file.",
        epilog=EXAMPLES,
    )
    parser.add_argument(
        "config",
        metavar="CONFIG",
        help="a Python file with a function get_config(), or the name of one of the package: tiny, match, facts, sft_stage1 or "
        "sft_stage2",
    )
    parser.add_argument("changes", nargs="*", metavar="name=value", help="settings to change, such as loop.steps=100")
    parser.add_argument("--export", metavar="FOLDER", help="do not train: write the newest checkpoint as a Hugging Face folder")
    parser.add_argument(
        "--export-adapter",
        metavar="FOLDER",
        help="do not train: write the LoRA adapters of the newest checkpoint alone, as a folder that peft reads",
    )
    # SIGTERM is for the run to hear.
    parser.set_defaults(signals=(signal.SIGINT,))
    return parser


def run(arguments: argparse.Namespace) -> int:
    """0 finished, 42 preempted: saved, to be started again."""
    from svlm_jax.train.config import load_config
    from svlm_jax.train.run import export_adapter, export_run, run

    def tell(line: str) -> None:
        """A run is not for its lines: it goes on when nobody can read them."""
        say(f"{line}\n")

    config = load_config(arguments.config, arguments.changes)
    for write, folder in ((export_run, arguments.export), (export_adapter, arguments.export_adapter)):
        if folder is not None:
            tell(f"step {write(config, folder):,} of {config.name} is in {folder}")
    if arguments.export or arguments.export_adapter:
        return 0
    outcome = run(config, tell)
    tell(f"{config.name} {outcome}")
    return PREEMPTED if outcome == "preempted" else 0
