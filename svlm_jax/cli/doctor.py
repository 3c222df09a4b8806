"""`svlm doctor`: what this machine has, and whether a model fits on it."""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from svlm_jax.cli.values import number, size, window

EXAMPLES = """\
examples:
  svlm doctor                                                           versions, devices, codecs, kernels
  svlm doctor --model qwen2.5-vl-7b                                     would it fit here? (no download needed)
  svlm doctor --model ./my-model --window vision=32 --size 1920x1080
  svlm doctor --model qwen2.5-vl-72b --device-memory 141 --json         on a device with 141 GiB, for scripts"""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "doctor",
        help="report devices, versions, codecs, kernels, and the memory that a model needs",
        description="Report what this machine has and, for a model and a window, how much memory a stream needs.",
        epilog=EXAMPLES,
    )
    parser.add_argument("--model", metavar="NAME", help="a checkpoint folder, a hub id, or a name such as qwen2.5-vl-7b")
    parser.add_argument("--revision", metavar="NAME", help="branch, tag or commit of a hub id")
    parser.add_argument("--window", type=window, default={}, metavar="PARTS", help="vision=16,text=16,sink=512,tail=512")
    parser.add_argument("--size", type=size, default=(1280, 720), metavar="WxH", help="size of the video (1280x720)")
    parser.add_argument("--fps", type=number(float, above=0), default=2.0, help="frames per second that the model sees (2)")
    parser.add_argument("--chunk", type=number(float, above=0), default=1.0, metavar="SECONDS", help="video per caption (1)")
    parser.add_argument(
        "--duration", type=number(float, above=0), metavar="SECONDS", help="length of the stream, for windows that never close"
    )
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16", help="weights and cache (bfloat16)")
    parser.add_argument("--streams", type=number(int, least=1), default=1, metavar="N", help="streams at once (1)")
    parser.add_argument("--device-memory", type=number(float, above=0), metavar="GIB", help="instead of this machine's")
    parser.add_argument("--json", action="store_true", help="the report as one JSON object")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Print the report; the exit code is 0 even when a model does not fit, because the question was answered."""
    import json

    from rich.console import Console

    from svlm_jax.cli import doctor_report as doctor

    report = doctor.machine()
    if arguments.model:
        report["model"] = _model(arguments, report["devices"])
    console = Console(soft_wrap=arguments.json)
    if arguments.json:
        console.print_json(json.dumps(report), indent=None if not console.is_terminal else 2)
    else:
        doctor.show(report, console)
    return 0


def _model(arguments: argparse.Namespace, devices: list[dict[str, Any]]) -> dict[str, Any]:
    from svlm_jax.cache.window import WindowConfig
    from svlm_jax.checkpoint import hf
    from svlm_jax.cli import doctor_report as doctor
    from svlm_jax.host.progress import loading
    from svlm_jax.streaming import memory_plan as memory
    from svlm_jax.video.resize import smart_resize
    from svlm_jax.video.source import frames_per_chunk

    if any(Path(arguments.model).glob("*.safetensors")):  # what `load` would refuse does not fit, whatever the memory
        with loading(f"reading {arguments.model}") as progress:
            hf.check_weights(Path(arguments.model), progress=progress)
    config, lengths = memory.describe(arguments.model, revision=arguments.revision)
    width, height = arguments.size
    tower = config.vision
    side = getattr(tower, "image_size", None)
    rows, columns = (side, side) if side is not None else smart_resize(height, width)
    frames = frames_per_chunk(arguments.fps, arguments.chunk)
    lengths = dataclasses.replace(lengths, patches=tower.clip_tokens(frames, rows, columns))
    window = WindowConfig(**arguments.window)
    plan = memory.plan(
        config,
        window,
        lengths,
        chunk_seconds=arguments.chunk,
        duration=arguments.duration,
        dtype=arguments.dtype,
        streams=arguments.streams,
    )
    device_bytes = int(arguments.device_memory * 2**30) if arguments.device_memory else devices[0]["memory_bytes"]
    return {
        "name": arguments.model,
        "family": config.family,
        "dtype": arguments.dtype,
        "streams": arguments.streams,
        "window": dataclasses.asdict(window),
        "frame_size": [rows, columns],
        "tokens_per_chunk": lengths.patches,
        "memory": doctor.needs(plan, device_bytes),
    }
