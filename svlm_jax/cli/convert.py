"""`svlm convert`: a checkpoint from one format into another."""

import argparse

EXAMPLES = """\
examples:
  svlm convert Qwen/Qwen2.5-VL-3B-Instruct ./qwen-3b                    the hub's files as a folder for Orbax
  svlm convert ./trained ./trained-hf --to hf                           a folder that transformers loads"""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "convert",
        help="convert a checkpoint between the Hugging Face and Orbax formats",
        description="Convert a checkpoint. The destination must not exist; it appears only when it is complete.",
        epilog=EXAMPLES,
    )
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a model: a folder, a hub id, or a name such as embedded, qwen2.5-vl-7b or random:small",
    )
    parser.add_argument("destination", metavar="DESTINATION", help="a folder that does not exist yet")
    parser.add_argument("--to", choices=("orbax", "hf"), default="orbax", help="format to write (default: orbax)")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), help="number format to write (default: that of the source)")
    parser.add_argument("--revision", metavar="NAME", help="branch, tag or commit of a hub id (default: its main branch)")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Convert with a progress bar, and say what was written."""
    from svlm_jax.host.progress import Stages, prose

    with Stages("starting") as stages:
        from svlm_jax.checkpoint.convert import convert

        stages.enter(f"converting {arguments.source}")
        convert(
            arguments.source,
            arguments.destination,
            to=arguments.to,
            dtype=arguments.dtype,
            revision=arguments.revision,
            progress=stages.move,
        )
    layout = {"orbax": "an Orbax checkpoint", "hf": "a Hugging Face checkpoint"}[arguments.to]
    prose().print(f"Written: {arguments.destination}, {layout}. Use it with --model {arguments.destination}", markup=False)
    return 0
