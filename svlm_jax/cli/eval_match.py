"""`svlm eval match`: a model commentates on a match that it has never seen, and every second is judged against the truth."""

import argparse
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from svlm_jax.cli import options
from svlm_jax.cli.values import number

if TYPE_CHECKING:
    from svlm_jax.streaming.settings import StreamSettings
    from svlm_jax.streaming.vlm import StreamingVLM

DESCRIPTION = """\
Stream a drawn match, from a seed, through a model as fast as it goes, and judge every second against the truth. The model
hears nothing but itself: what it says is what it remembers.

  event F1      the right event and team within a second      right score   per game: score lines with the true score
  follows       score lines that follow from its own last     silence       seconds of silence that were to be silent
  ms            compute for one second of the match"""
COLUMNS = (
    ("event F1", "event_f1"),
    ("right score", "score_accuracy"),
    ("follows", "score_consistency"),
    ("silence", "silence_precision"),
    ("ms", "seconds_per_second"),
)


def add(benchmarks: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str) -> argparse.ArgumentParser:
    parser = benchmarks.add_parser(name, help="the endless match: a ball game with the truth of every second",
                                   description=DESCRIPTION)  # fmt: skip
    parser.add_argument("--seed", type=number(int, least=0), default=1, metavar="S", help="which match to draw (default: 1)")
    parser.add_argument(
        "--minutes", type=number(float, above=0), default=10, metavar="M", help="minutes of the match (default: 10)"
    )
    parser.add_argument(
        "--json",
        metavar="FILE",
        help="file for the results, for the whole match and for every ten minutes of it, and how they were made",
    )
    model = parser.add_argument_group("model")
    options.add_model(model, default="embedded")
    options.add_running(model)
    options.add_window(parser.add_argument_group("cache"))
    options.add_size(parser.add_argument_group("video"), default=(112, 84), help="frames that the model sees (default: 112x84)")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """A line of the table for every ten minutes and for the whole, and the file."""
    from svlm_jax.host.progress import Stages, prose

    with Stages("starting") as stages:
        from svlm_jax.cli.stream_spec import ModelSpec
        from svlm_jax.eval.results import manifest
        from svlm_jax.host.compile_cache import keep_compiled
        from svlm_jax.host.files import check_distinct, check_target, write_json
        from svlm_jax.synthetic.evaluate import evaluate_match

        keep_compiled(arguments.compile_cache)
        if arguments.json:
            check_distinct([check_target(arguments.json)], [arguments.model])
        vlm = ModelSpec.of(arguments).load(stages)
    console = prose()
    settings = match_settings(vlm, arguments)
    about = manifest(["svlm", *sys.argv[1:]], model=arguments.model, dtype=vlm.number_format, settings=settings.to_json())
    width, height = arguments.size
    slices: list[dict[str, Any]] = []

    def tell(part: dict[str, Any]) -> None:
        """A line, and in the file what is known so far: a match of hours may be interrupted."""
        with stages.aside():
            console.print(_line(_span(part), part))
        slices.append(part)
        if arguments.json:
            write_json(arguments.json, {"slices": slices, "manifest": about})

    console.print(f"{'minutes':>9}" + "".join(f"{title:>13}" for title, _ in COLUMNS))
    with Stages(f"match {arguments.seed}") as stages:
        result = evaluate_match(
            vlm,
            arguments.seed,
            arguments.minutes,
            settings,
            size=(height, width),
            on_caption=lambda caption: stages.move(int(caption.end), round(arguments.minutes * 60)),
            on_slice=tell,
        )
    if len(result["slices"]) > 1:
        console.print(_line("all", result))
    if arguments.json:
        write_json(arguments.json, {**result, "manifest": about})
        console.print(f"Written: {arguments.json}", markup=False)
    return 0


def match_settings(vlm: "StreamingVLM", arguments: argparse.Namespace) -> "StreamSettings":
    """As the checkpoint was trained, with what was asked for."""
    import dataclasses

    kept = dataclasses.replace(vlm.defaults.window, **options.window_changes(arguments))
    how = {"implementation": arguments.implementation, "cache_dtype": arguments.cache_dtype}
    return dataclasses.replace(vlm.defaults, window=kept, duration=arguments.minutes * 60, **how)


def _span(part: Mapping[str, Any]) -> str:
    return f"{part['start'] / 60:.0f}-{(part['start'] + part['seconds']) / 60:.4g}"


def _line(name: str, figures: Mapping[str, Any]) -> str:
    return f"{name:>9}" + "".join(f"{_shown(key, figures[key]):>13}" for _, key in COLUMNS)


def _shown(key: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{1e3 * value:.1f}" if key == "seconds_per_second" else f"{value:.3f}"
