"""Who remembers? One model, trained on clips of up to 128 s, asked about an hour of facts at equal budget, for every memory.

    python -m benchmarks.recall [--minutes 95] [--seeds 1,2,3] [--modes vsb,...] [--model embedded-facts]

A fact (`svlm_jax.synthetic.facts`) is seen for six seconds of every minute, and then never again. At the end of every minute
from the 61st on, questions go to facts that are 1, 2, 5, 10, 20, 40 and 60 minutes old (half a minute more or less): equally
many of every age, from equally full memories. An answer is right when its text is the sign; guessing is right once in eight.

A memory holds 810 tokens in each layer: six minutes of pictures at 0.5 frames a second, a tenth of an hour. Every row, a
memory and a seed, is written as soon as it is finished to benchmarks/results/recall.json, and is not run again when it is
there; the figure stands beside it.
"""

import argparse
import dataclasses
import itertools
import json
import pathlib
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib.figure
import numpy as np
import rich.console
import rich.table

from svlm_jax.cache import policies
from svlm_jax.cache.memory_state import memory_bytes
from svlm_jax.cache.policies.base import MemoryPolicy
from svlm_jax.errors import EvalError, SvlmError
from svlm_jax.eval.results import Rows, manifest
from svlm_jax.prompt.qa import Answer
from svlm_jax.streaming.vlm import StreamingVLM
from svlm_jax.synthetic.evaluate_facts import CELLS, FPS, GRID, facts_chunk
from svlm_jax.synthetic.facts import EVERY, Fact, Facts

RESULTS = pathlib.Path(__file__).parent / "results" / "recall.json"
BUDGET = 810
CLIP = 30  # frames: a minute, so that questions come behind whole clips
AGES = (1, 2, 5, 10, 20, 40, 60)  # minutes
EQUAL = BUDGET // CELLS * GRID  # seconds whose tokens fill the budget


@dataclasses.dataclass(frozen=True)
class Mode:
    """A memory, and how it is drawn: in the left panel, in the right one (an ablation), or in both."""

    memory: Mapping[str, Any]
    colour: str
    panels: tuple[int, ...] = (0,)


def _par(colour: str, **changes: Any) -> Mode:
    return Mode({"policy": "vsb+par", **changes}, colour, (1,))


MODES = {
    "full": Mode({"policy": "full"}, "black"),
    "none": Mode({"policy": "last-frames", "frames": 2}, "tab:gray"),
    "last 4 frames": Mode({"policy": "last-frames", "frames": 4}, "tab:brown"),
    "last 180 frames": Mode({"policy": "last-frames", "frames": round(EQUAL * FPS)}, "tab:olive"),
    "window": Mode({"policy": "window", "window": EQUAL}, "tab:cyan"),
    "fifo": Mode({"policy": "fifo"}, "tab:orange"),
    "top-k": Mode({"policy": "top-k"}, "tab:red"),
    "vsb": Mode({"policy": "vsb"}, "tab:green", (0, 1)),
    "vsb+par": Mode({"policy": "vsb+par"}, "tab:blue", (0, 1)),
    "par 10 %": _par("tab:pink", retrieve=0.1),
    "par 20 %": _par("tab:purple", retrieve=0.2),
    "par 100 %": _par("tab:gray", retrieve=1.0),
    "page positions": _par("tab:red", page_positions=True),
    "buckets of the cache": _par("tab:orange", buckets="cache"),
    "original positions": _par("tab:brown", positions="original"),
}
# What LiveVLM publishes (arXiv 2505.15269, tables 1, 5 and 6): the first is to be right more often than the second.
CLAIMS = (
    ("vsb", "none"),
    ("vsb+par", "vsb"),
    ("vsb+par", "par 100 %"),
    ("vsb+par", "page positions"),
    ("vsb+par", "last 4 frames"),
    ("vsb", "top-k"),
    ("vsb+par", "buckets of the cache"),
    ("vsb+par", "original positions"),
)


def memory_of(mode: Mode, minutes: float) -> MemoryPolicy:
    """The full memory has room for all of the stream; all others have the budget."""
    whole = (int(minutes * 60 / GRID) + CLIP) * CELLS
    budget = whole if mode.memory["policy"] == "full" else BUDGET
    own = policies.options(mode.memory["policy"])
    shared = {name: value for name, value in (("budget", budget), ("clip_frames", CLIP)) if name in own}
    return policies.memory_policy(**{**shared, **mode.memory})


def due(facts: Facts, now: float, ages: Sequence[float]) -> Iterator[tuple[float, Fact]]:
    """What is asked at the end of a minute: (age in minutes, fact); nothing before the oldest can be asked about."""
    if now % 60 or now < 60 * max(ages) + EVERY:
        return
    seen = facts.until(now)
    for age in ages:
        for fact in seen:
            if -EVERY / 2 <= now - fact.end - 60 * age < EVERY / 2:
                yield age, fact


def measure(vlm: StreamingVLM, name: str, seed: int, minutes: float, ages: Sequence[float]) -> dict[str, Any]:
    """One row: one stream through one memory, and what was right of what was asked, by age."""
    memory, facts = memory_of(MODES[name], minutes), Facts(seed)
    recall = vlm.qa_session(memory=memory, fps=FPS, max_new_tokens=4)
    found: dict[float, list[tuple[bool, float]]] = {age: [] for age in ages}
    waits: list[float] = []  # ms
    begin, watching = time.perf_counter(), 0.0
    for number in range(int(minutes * 60 / GRID)):
        chunk = facts_chunk(facts, number)
        fed = time.perf_counter()
        recall.feed(chunk)
        watching += time.perf_counter() - fed
        for age, fact in due(facts, chunk.end, ages):
            answer = recall.ask(fact.question)
            found[age].append((answer.text == fact.answer, of_card(answer, fact)))
            waits.append(answer.first_token_ms)
    if empty := [age for age in ages if not found[age]]:
        raise EvalError(f"{minutes:g} minutes of stream {seed} give no question about {empty[0]:g} minutes ago: expected more.")
    return {
        "mode": name,
        "seed": seed,
        "memory": policies.to_json(memory),
        "ages": list(ages),
        "asked": [len(found[age]) for age in ages],
        "right": [sum(right for right, _ in found[age]) for age in ages],
        "layers": [round(float(np.mean([share for _, share in found[age]])), 4) for age in ages],
        "first_token_ms": round(statistics.median(waits), 2),
        "frames_per_second": round(minutes * 60 * FPS / watching, 1),
        "state_bytes": memory_bytes(recall.state),
        "wall_seconds": round(time.perf_counter() - begin, 1),
    }


def of_card(answer: Answer, fact: Fact) -> float:
    """The share of the layers that read something of the seconds when the card was seen."""
    begin = fact.begin - GRID + 1 / FPS
    return max((share for second, share in answer.read if begin < second + 1 / FPS and second < fact.end), default=0.0)


# ------------------------------------------------------------------------------------------------ what came out


def accuracy(rows: Mapping[str, Any], name: str) -> np.ndarray:
    """Share of right answers, (seeds, ages); no rows of that mode: (0, ages)."""
    found = [np.asarray(row["right"]) / np.asarray(row["asked"]) for row in rows.values() if row["mode"] == name]
    return np.stack(found) if found else np.zeros((0, len(AGES)))


def claims(rows: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Of every claim: the mean difference over all ages, that of each seed, and whether all seeds agree with it."""
    found = {}
    for better, worse in CLAIMS:
        a, b = accuracy(rows, better), accuracy(rows, worse)
        if len(a) and len(a) == len(b):
            each = (a - b).mean(1)
            found[f"{better} > {worse}"] = {
                "difference": round(float(each.mean()), 4),
                "each": each.round(4).tolist(),
                "holds": bool((each > 0).all()),
            }
    return found


def table(rows: Mapping[str, Any], ages: Sequence[float]) -> rich.table.Table:
    """Accuracy by age in per cent, mean and standard deviation over seeds; and what that costs, medians over seeds."""
    result = rich.table.Table("memory", *(f"{age:g} min" for age in ages), "mean", "first token, ms", "frames/s", "MiB")
    for name in MODES:
        found = 100 * accuracy(rows, name)
        if len(found):
            cells = [f"{mean:.0f} ± {spread:.0f}" for mean, spread in zip(found.mean(0), found.std(0), strict=True)]
            first, frames, size = (
                statistics.median(row[key] for row in rows.values() if row["mode"] == name)
                for key in ("first_token_ms", "frames_per_second", "state_bytes")
            )
            result.add_row(name, *cells, f"{found.mean():.1f}", f"{first:.1f}", f"{frames:.0f}", f"{size / 2**20:.1f}")
    return result


def draw(rows: Mapping[str, Any], ages: Sequence[float], path: pathlib.Path) -> None:
    """Accuracy against age: the memories on the left, what is changed in VSB + PaR on the right; bands from least to most."""
    figure = matplotlib.figure.Figure(figsize=(12, 4.4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for name, mode in MODES.items():
        found = 100 * accuracy(rows, name)
        for panel in mode.panels if len(found) else ():
            panels[panel].plot(ages, found.mean(0), "o-", ms=3, color=mode.colour, label=name)
            panels[panel].fill_between(ages, found.min(0), found.max(0), color=mode.colour, alpha=0.12, linewidth=0)
    for panel, title in zip(panels, (f"memories of {BUDGET} tokens", "VSB + PaR, with one thing changed"), strict=True):
        panel.axhline(12.5, color="black", linestyle=":", linewidth=1)
        panel.set(title=title, xlabel="age of the fact (minutes)", xscale="log", ylim=(0, 102))
        panel.set_xticks(ages, [f"{age:g}" for age in ages])
        panel.minorticks_off()
        panel.spines[["top", "right"]].set_visible(False)
        if panel.get_legend_handles_labels()[0]:
            panel.legend(frameon=False, fontsize=8, ncols=2)
    panels[0].set_ylabel("right answers (%); dotted: guessing")
    figure.savefig(path, dpi=120)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=95, help="of each stream (95: 35 questions of every age)")
    parser.add_argument("--seeds", default="1,2,3", help="streams, such as 1,2,3")
    parser.add_argument("--ages", default=",".join(map(str, AGES)), help="of the facts asked about, in minutes")
    parser.add_argument("--modes", help=f"some of: {', '.join(MODES)}")
    parser.add_argument("--model", default="embedded-facts")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS)
    return parser


def main(argv: list[str] | None = None) -> int:
    parser = _parser()
    arguments = parser.parse_args(argv)
    names = [name.strip() for name in arguments.modes.split(",")] if arguments.modes else list(MODES)
    if unknown := [name for name in names if name not in MODES]:
        parser.error(f"--modes has {unknown[0]!r}, expected some of {', '.join(MODES)}")
    ages = [float(age) for age in arguments.ages.split(",")]
    if arguments.minutes < max(ages) + 1:
        parser.error(f"--minutes {arguments.minutes:g} with facts of {max(ages):g} minutes: expected {max(ages) + 1:g} or more")
    try:
        _run(arguments, names, ages, rich.console.Console(highlight=False, soft_wrap=True))
    except SvlmError as error:
        parser.error(str(error))
    return 0


def _run(arguments: argparse.Namespace, names: list[str], ages: list[float], console: rich.console.Console) -> None:
    vlm = StreamingVLM.from_pretrained(arguments.model, dtype=arguments.dtype)
    settings = {"model": arguments.model, "dtype": str(vlm.dtype), "minutes": arguments.minutes, "ages": ages, "budget": BUDGET}
    rows = Rows(arguments.out, settings, manifest(["python", "-m", "benchmarks.recall", *sys.argv[1:]]))
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    for seed, name in itertools.product(seeds, names):
        row = f"{name}, stream {seed}"
        if row in rows:
            console.print(f"{row}: there already")
            continue
        rows.add(row, measure(vlm, name, seed, arguments.minutes, ages))
        found = rows.rows[row]
        console.print(f"{row}: {sum(found['right'])} of {sum(found['asked'])} right in {found['wall_seconds']:.0f} s")
        draw(rows.rows, ages, arguments.out.with_suffix(".png"))
    console.print(table(rows.rows, ages))
    console.print(json.dumps(claims(rows.rows), indent=1))


if __name__ == "__main__":
    sys.exit(main())
