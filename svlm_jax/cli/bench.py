"""`svlm bench`: what a second costs on this machine, for any model, in four memories."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from svlm_jax.cli import options
from svlm_jax.cli.values import number, numbers

if TYPE_CHECKING:
    from svlm_jax.eval.efficiency import Plan
    from svlm_jax.streaming.vlm import StreamingVLM

DESCRIPTION = """\
Measure latency a token against the length of the video for streaming, full attention, and windows with and without overlap;
the parts of a second; memory over time; the frame rate and the number of streams that real time allows; and the time to the
first token. Rows that are in the file already are not measured again, so an interrupted run goes on; a figure is drawn beside
the file."""
EXAMPLES = """\
examples:
  svlm bench --model random:small --size 448x252 --json bench.json      11 million random parameters, on a CPU
  svlm bench --model random:qwen2.5-vl-7b --seconds 1024                a released shape, without a download
  svlm bench --model mit-han-lab/StreamingVLM --size 1280x720 --window vision=8"""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "bench",
        help="measure latency, memory and frame rates on this machine",
        description=DESCRIPTION,
        epilog=EXAMPLES,
    )
    model = parser.add_argument_group("model")
    options.add_model(model, default="embedded")
    options.add_running(model)
    options.add_window(parser.add_argument_group("cache"), cache=False)
    options.add_size(model, default=None, help="frames that the model sees (default: as it was trained, else as for 720p)")
    parser.add_argument(
        "--seconds",
        type=number(int, least=2),
        default=256,
        metavar="N",
        help="length of the long streams, in seconds of video (default: 256)",
    )
    parser.add_argument(
        "--tokens", type=number(int, least=1), default=10, metavar="N", help="tokens of every reply (default: 10)"
    )
    parser.add_argument(
        "--frames",
        type=numbers,
        default=(16, 64, 256, 512),
        metavar="N,N",
        help="numbers of frames after which the time to a first token is measured (default: 16,64,256,512)",
    )
    parser.add_argument(
        "--rates", type=numbers, default=(2, 4, 8, 16), metavar="N,N", help="frames per second to try (default: 2,4,8,16)"
    )
    parser.add_argument(
        "--streams",
        type=numbers,
        default=(2, 4, 8),
        metavar="N,N",
        help="numbers of streams at the same time to try (default: 2,4,8)",
    )
    parser.add_argument(
        "--json",
        type=Path,
        default=Path("bench.json"),
        metavar="FILE",
        help="file for the measurements, one a row (default: bench.json)",
    )
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Measure row by row; the file and the figure are complete after each."""
    from svlm_jax.host.progress import Stages, prose, seconds_of

    with Stages("starting") as stages:
        from svlm_jax.cli.stream_spec import ModelSpec
        from svlm_jax.eval import efficiency
        from svlm_jax.eval.efficiency_figure import draw
        from svlm_jax.eval.results import Rows, manifest
        from svlm_jax.host.compile_cache import keep_compiled
        from svlm_jax.host.files import check_distinct, check_target

        keep_compiled(arguments.compile_cache)
        check_distinct([check_target(arguments.json), check_target(arguments.json.with_suffix(".png"))], [arguments.model])
        vlm = ModelSpec.of(arguments).load(stages)
    console = prose()
    plan = plan_of(arguments, vlm)
    settings = {"model": arguments.model, "dtype": vlm.number_format, **plan.to_json()}
    kept = Rows(arguments.json, settings, manifest(["svlm", *sys.argv[1:]]))
    title = f"{arguments.model}, {plan.size[1]}x{plan.size[0]}, {vlm.number_format}"
    rows = [row for row in efficiency.rows_of(vlm, plan) if row.name not in kept]
    clock = Remaining([row.seconds for row in rows])
    for index, row in enumerate(rows, 1):
        with seconds_of(f"{row.name} ({index} of {len(rows)}{clock.told()})", row.seconds) as watched:
            kept.add(row.name, efficiency.attempt(row, watched))
        clock.done()
        console.print(f"{row.name:>32}  {_told(kept.rows[row.name])}")
        draw(kept.rows, arguments.json.with_suffix(".png"), title)
    for name, value in efficiency.summary(kept.rows).items():
        console.print(f"{name}: {'not measured' if value is None else f'{value:.4g}'}")
    console.print(f"Written: {arguments.json}, {arguments.json.with_suffix('.png')}", markup=False)
    return 0


class Remaining:
    """About how long a list of measurements still takes, from how long those took that are done.

    A measurement costs about what its seconds of video cost, and as much again as `FIXED` of them, for compiling.
    """

    FIXED = 30

    def __init__(self, seconds: Sequence[int]) -> None:
        self._costs = [length + self.FIXED for length in seconds]
        self._begin, self._done = time.monotonic(), 0

    def done(self) -> None:
        """One more is."""
        self._done += 1

    def told(self) -> str:
        """In words, "" before the first is done."""
        if not self._done:
            return ""
        left = sum(self._costs[self._done :]) / sum(self._costs[: self._done]) * (time.monotonic() - self._begin)
        return f", about {left / 60:.0f} min left" if left >= 90 else f", about {left:.0f} s left"


def plan_of(arguments: argparse.Namespace, vlm: "StreamingVLM") -> "Plan":
    """The plan that the arguments describe."""
    import dataclasses

    from svlm_jax.eval.efficiency import Plan, default_size

    return Plan(
        size=(arguments.size[1], arguments.size[0]) if arguments.size else default_size(vlm),
        tokens=arguments.tokens,
        seconds=arguments.seconds,
        window=dataclasses.replace(vlm.defaults.window, **arguments.window),
        frames=arguments.frames,
        rates=arguments.rates,
        streams=arguments.streams,
        implementation=arguments.implementation,
        cache_dtype=arguments.cache_dtype,
    )


def _told(row: dict) -> str:
    import statistics

    if "failed" in row:
        return f"failed: {row['failed']}"
    ms = statistics.median(row["ms"]) if isinstance(row["ms"], list) else row["ms"]
    return f"{ms:10.1f} ms a second, {row['slots']:,} slots"
