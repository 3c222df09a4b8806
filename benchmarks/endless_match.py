"""One model on unseen matches of two hours, in four memories and with parts taken away: what holds, and what does not?

    python -m benchmarks.endless_match [--minutes 120] [--seeds 1] [--modes streaming,...] [--model embedded]

Free-running, the same weights everywhere. For every ten minutes: event F1 (right event, right team, within a second), score
lines with the true score per game, score lines that follow from the model's own last, silence precision, compute per second.

Full attention and recomputing cost too much for two hours on a CPU; they, and the ablations, see the beginning of the match
(--full-minutes, --recompute-minutes, --ablation-minutes), and their rows say so. Every row is written as soon as it is finished
to benchmarks/results/endless_match.json, and is not run again when it is there; the figure stands beside it.

What training on overlapping chunks is worth is measured by benchmarks/overlap.py.
"""

import argparse
import dataclasses
import json
import pathlib
import sys
import time
from collections.abc import Mapping
from typing import Any

import matplotlib.figure
import numpy as np
import rich.console

from svlm_jax.errors import SvlmError
from svlm_jax.eval.results import Rows, manifest
from svlm_jax.streaming.settings import StreamSettings
from svlm_jax.streaming.vlm import StreamingVLM
from svlm_jax.synthetic.evaluate import evaluate_match
from svlm_jax.synthetic.score import SLICE

RESULTS = pathlib.Path(__file__).parent / "results" / "endless_match.json"


@dataclasses.dataclass(frozen=True)
class Mode:
    """A row: what is changed in the window, which limit on its minutes holds, and how it is drawn (None: not)."""

    window: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    limit: str | None = None
    colour: str | None = None


MODES = {
    "streaming": Mode(colour="tab:blue"),
    "window without overlap": Mode({"memory": "hard-reset"}, colour="tab:orange"),
    "native positions": Mode({"positions": "native"}, colour="tab:purple"),
    "window with overlap": Mode({"memory": "recompute"}, "recompute_minutes", "tab:green"),
    "full attention": Mode({"memory": "full"}, "full_minutes", "tab:red"),
    "no sinks": Mode({"sink": 0}, "ablation_minutes"),
    "no tail": Mode({"tail": 0}, "ablation_minutes"),
    "neither sinks nor tail": Mode({"sink": 0, "tail": 0}, "ablation_minutes"),
    "vision 0 s": Mode({"vision": 0.0}, "ablation_minutes"),
    "vision 1 s": Mode({"vision": 1.0}, "ablation_minutes"),
    "vision 4 s": Mode({"vision": 4.0}, "ablation_minutes"),
    "text 16 s": Mode({"text": 16.0}, "ablation_minutes"),
}
FIGURES = ("event_f1", "score_accuracy", "score_consistency", "silence_precision")


def settings_of(vlm: StreamingVLM, mode: Mode) -> StreamSettings:
    """As the checkpoint was trained, with what the row changes."""
    return dataclasses.replace(vlm.defaults, window=dataclasses.replace(vlm.defaults.window, **mode.window))


def measure(vlm: StreamingVLM, name: str, seed: int, minutes: float, console: rich.console.Console) -> dict[str, Any]:
    """One row: the figures of `evaluate_match`, the settings, and what the cache is made of."""
    settings = settings_of(vlm, MODES[name])
    usage: dict[str, tuple[int, int]] = {}
    begin = time.perf_counter()

    def tell(part: Mapping[str, Any]) -> None:
        figures = "  ".join(f"{figure} {_shown(part[figure])}" for figure in FIGURES)
        console.print(f"  {part['start'] // 60:>4} min  {figures}  {1e3 * part['seconds_per_second']:.1f} ms a second")

    found = evaluate_match(vlm, seed, minutes, settings, on_slice=tell, on_caption=lambda caption: usage.update(caption.usage))
    return {
        "mode": name,
        **found,
        "window": dataclasses.asdict(settings.window),
        "cache_tokens": sum(used for used, _ in usage.values()),
        "cache_slots": sum(limit for _, limit in usage.values()),
        "wall_seconds": round(time.perf_counter() - begin, 1),
    }


def minutes_of(name: str, arguments: argparse.Namespace) -> float:
    """How much of the match a row sees."""
    limit = MODES[name].limit
    return arguments.minutes if limit is None else min(arguments.minutes, getattr(arguments, limit))


def draw(rows: Mapping[str, Any], path: pathlib.Path) -> None:
    """Event F1, right score and milliseconds against time, the mean over seeds; ablations as bars of event F1."""
    figure = matplotlib.figure.Figure(figsize=(13, 8), layout="constrained")
    axes = figure.subplots(2, 2)
    panels = (
        ("event_f1", "event F1", axes[0, 0], 1.0),
        ("score_accuracy", "score lines with the true score, per game", axes[0, 1], 1.0),
        ("seconds_per_second", "ms for a second of the match", axes[1, 0], 1e3),
    )
    for key, title, ax, scale in panels:
        for name, mode in MODES.items():
            if mode.colour is not None and (series := _mean(rows, name, key)):
                middle = [start / 60 + 5 for start in series]
                ax.plot(middle, [scale * value for value in series.values()], "o-", ms=3, color=mode.colour, label=name)
        ax.set(title=title, xlabel="minute of the match")
        ax.grid(alpha=0.3)
    axes[0, 0].set_ylim(0, 1.02)
    axes[0, 1].set_ylim(0, 1.02)
    axes[1, 0].set_yscale("log")
    axes[1, 0].legend()
    names = [name for name in MODES if any(row["mode"] == name for row in rows.values())]
    bars = axes[1, 1]
    for place, (key, title) in enumerate((("event_f1", "event F1"), ("score_accuracy", "right score"))):
        bars.barh([i + 0.4 * place for i in range(len(names))], [_whole(rows, name, key) for name in names], 0.4, label=title)
    bars.set(yticks=[i + 0.2 for i in range(len(names))], yticklabels=names, xlim=(0, 1.02), title="whole row")
    bars.invert_yaxis()
    bars.legend(loc="upper center", bbox_to_anchor=(0.5, -0.06), ncols=2)
    figure.savefig(path, dpi=120)


def _mean(rows: Mapping[str, Any], name: str, key: str) -> dict[int, float]:
    """Start of a slice -> mean over seeds; rests of slices are left out unless there is nothing else."""
    found: dict[int, list[float]] = {}
    for row in rows.values():
        whole = [part for part in row["slices"] if part["seconds"] == SLICE] or row["slices"]
        for part in whole if row["mode"] == name else []:
            if part[key] is not None:
                found.setdefault(part["start"], []).append(part[key])
    return {start: float(np.mean(values)) for start, values in sorted(found.items())}


def _whole(rows: Mapping[str, Any], name: str, key: str) -> float:
    values = [row[key] for row in rows.values() if row["mode"] == name and row[key] is not None]
    return float(np.mean(values)) if values else 0.0


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--full-minutes", type=float, default=20, help="of full attention: 52 slots more a second")
    parser.add_argument("--recompute-minutes", type=float, default=20, help="of the window with overlap")
    parser.add_argument("--ablation-minutes", type=float, default=60, help="of every ablation")
    parser.add_argument("--seeds", default="1", help="matches, such as 1,2,3")
    parser.add_argument("--modes", help=f"some of: {', '.join(MODES)}")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS)
    return parser


def main(argv: list[str] | None = None) -> int:
    parser = _parser()
    arguments = parser.parse_args(argv)
    names = [name.strip() for name in arguments.modes.split(",")] if arguments.modes else list(MODES)
    if unknown := [name for name in names if name not in MODES]:
        parser.error(f"--modes has {unknown[0]!r}, expected some of {', '.join(MODES)}")
    console = rich.console.Console(highlight=False, soft_wrap=True)
    try:
        _run(arguments, names, console)
    except SvlmError as error:
        parser.error(str(error))
    return 0


def _run(arguments: argparse.Namespace, names: list[str], console: rich.console.Console) -> None:
    command = ["python", "-m", "benchmarks.endless_match", *sys.argv[1:]]
    vlm = StreamingVLM.from_pretrained(arguments.model, dtype=arguments.dtype)
    settings = {"model": arguments.model, "dtype": str(vlm.dtype)}
    rows = Rows(arguments.out, settings, manifest(command))
    for seed in (int(seed) for seed in arguments.seeds.split(",")):
        for name in names:
            minutes = minutes_of(name, arguments)
            row = f"{name}, match {seed}, {minutes:g} minutes"
            if row in rows:
                console.print(f"{row}: there already")
                continue
            console.print(f"{row}:")
            rows.add(row, measure(vlm, name, seed, minutes, console))
            draw(rows.rows, arguments.out.with_suffix(".png"))
    console.print(json.dumps({name: {key: row[key] for key in FIGURES} for name, row in rows.rows.items()}, indent=1))


if __name__ == "__main__":
    sys.exit(main())
