"""`svlm doctor`: what this machine has, and whether a model fits on it, or on another."""

import argparse
import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from svlm_jax.cli import options
from svlm_jax.cli.values import number
from svlm_jax.host.cards import CARDS, GIB

if TYPE_CHECKING:
    from svlm_jax.host.progress import Stages

EXAMPLES = f"""\
examples:
  svlm doctor                                                           versions, devices, codecs, kernels
  svlm doctor --model qwen2.5-vl-7b                                     would it fit here? (no download needed)
  svlm doctor --model qwen2.5-vl-7b --for h100                          ... and on that card?
  svlm doctor --model qwen2.5-vl-7b --for 16gb --quantize int8          ... with weights of 8 bits?
  svlm doctor --model ./my-model --window vision=32 --size 1920x1080
  svlm doctor --model qwen2.5-vl-72b --device-memory 141 --json         on a device with 141 GiB, for scripts

With --model the exit code says whether the model fits: 0 for yes or not known, 1 for no. The answer is for what `svlm watch`
would take with the same options: the same number format, window, query and picture size.

{options.MODEL}

{options.WINDOW}"""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "doctor",
        help="report devices, versions, codecs, kernels, and the memory that a model needs",
        description="Report what this machine has and, for a model and a window, how much memory a stream needs.",
        epilog=EXAMPLES,
    )
    options.add_model(parser.add_argument_group("model"), required=False)
    video = parser.add_argument_group("video")
    options.add_size(video, default=(1280, 720), help="size of the video, before it is scaled down (default: 1280x720)")
    options.add_pixels(video)
    options.add_fps(video, default=2.0)
    options.add_chunk(video)
    video.add_argument(
        "--duration", type=number(float, above=0), metavar="SECONDS", help="length of the stream, for windows that never close"
    )
    options.add_window(parser.add_argument_group("cache"))
    device = parser.add_argument_group("device")
    device.add_argument(
        "--for", choices=CARDS, dest="card", metavar="CARD", help=f"instead of this machine: {', '.join(CARDS)}"
    )
    device.add_argument(
        "--device-memory",
        type=number(float, above=0),
        metavar="GIB",
        help="instead of this machine: a GPU or TPU with so much memory",
    )
    device.add_argument(
        "--streams", type=number(int, least=1), default=1, metavar="N", help="streams at the same time (default: 1)"
    )
    parser.add_argument("--json", action="store_true", help="the report as one JSON object")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Print the report; 1 when a model was asked about and does not fit."""
    import json

    from rich.console import Console

    from svlm_jax.host.progress import Stages

    with Stages("looking at this machine") as stages:
        from svlm_jax.cli import doctor_report as doctor

        report = doctor.machine()
        if arguments.model:
            report["model"] = _model(arguments, report["devices"], stages)
    console = Console(soft_wrap=arguments.json)
    if arguments.json:
        console.print_json(json.dumps(report), indent=None if not console.is_terminal else 2)
    else:
        doctor.show(report, console)
    return 1 if arguments.model and report["model"]["memory"]["fits"] is False else 0


def _model(arguments: argparse.Namespace, devices: list[dict[str, Any]], stages: "Stages") -> dict[str, Any]:
    from svlm_jax.checkpoint import hf, named
    from svlm_jax.checkpoint.streaming_block import resize_rule
    from svlm_jax.cli import doctor_report as doctor
    from svlm_jax.cli.stream_spec import settings_of
    from svlm_jax.streaming import memory_plan
    from svlm_jax.video.resize import smart_resize

    if any(Path(arguments.model).glob("*.safetensors")):  # what `load` would refuse does not fit, whatever the memory
        stages.enter(f"reading {arguments.model}")
        hf.check_weights(Path(arguments.model), progress=stages.move)
    about = named.describe(arguments.model, revision=arguments.revision)
    settings = settings_of(arguments, about.generation_config)
    width, height = arguments.size
    rows, columns = smart_resize(height, width, resize_rule(about.config, about.generation_config, arguments.max_pixels))
    lengths = memory_plan.lengths_of(about, settings, rows, columns)
    device, platform, device_bytes = _device(arguments, devices)
    dtype = arguments.dtype
    if dtype == "auto":
        dtype = "float32" if platform == "cpu" else "bfloat16"
    plan = functools.partial(
        memory_plan.plan,
        about.config,
        settings.window,
        lengths,
        chunk_seconds=settings.chunk_seconds,
        duration=settings.duration,
        streams=arguments.streams,
    )
    numbers = {"quantize": arguments.quantize, "cache_dtype": settings.cache_dtype}
    cards = {
        name: plan(dtype="bfloat16", quantize=weights, cache_dtype=cache).total
        for name, (weights, cache) in doctor.NUMBERS.items()
    }
    return {
        "name": arguments.model,
        "family": about.config.family,
        "dtype": dtype,
        **numbers,
        "device": device,
        "streams": arguments.streams,
        "window": dataclasses.asdict(settings.window),
        "frame_size": [rows, columns],
        "tokens_per_chunk": lengths.patches,
        "memory": doctor.needs(plan(dtype=dtype, **numbers), device_bytes),
        "cards": {name: [card for card in CARDS if total <= CARDS[card].usable] for name, total in cards.items()},
    }


def _device(arguments: argparse.Namespace, devices: list[dict[str, Any]]) -> tuple[str, str, int | None]:
    """What the model is to run on: in words, its platform, and the bytes that JAX may use of it (None: not known)."""
    if arguments.device_memory is not None:
        return f"a device with {arguments.device_memory:g} GiB", "gpu", int(arguments.device_memory * GIB)
    if arguments.card is not None:
        card = CARDS[arguments.card]
        return card.kind, card.platform, card.usable
    return devices[0]["kind"], devices[0]["platform"], devices[0]["memory_bytes"]
