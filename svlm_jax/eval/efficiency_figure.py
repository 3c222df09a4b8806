"""The figure of `svlm bench`: latency, tokens and memory against the length of the video, parts of a second, first tokens."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes

from svlm_jax.eval.efficiency import KINDS, PARTS, REAL_TIME
from svlm_jax.host.files import atomic_file

COLOURS = {"stream": "tab:blue", "hard-reset": "tab:orange", "recompute": "tab:green", "full": "tab:red"}
TITLES = {
    "stream": "streaming",
    "hard-reset": "window without overlap",
    "recompute": "window with overlap",
    "full": "full attention",
}
# Of the parts of a second: none that a series has.
PART_COLOURS = {"vision": "tab:purple", "prefill": "tab:brown", "decode": "tab:pink"}
BEGINNING = 128  # s in which a window that is reset every 16 s can be told from a line
Rows = Mapping[str, Mapping[str, Any]]


def draw(rows: Rows, path: Path, title: str) -> None:
    """Writes the figure; rows that are missing or failed are left out."""
    there = {name: row for name, row in rows.items() if "failed" not in row}
    figure = matplotlib.figure.Figure(figsize=(17, 8), layout="constrained")
    figure.suptitle(title)
    panels = figure.subplot_mosaic([["latency", "cached", "memory"], ["parts", "parts", "first"]])
    latency, cached, memory, parts, first = (panels[name] for name in ("latency", "cached", "memory", "parts", "first"))
    _over_time(latency, there, "ms_per_token", "latency, ms a token")
    latency.axhline(1e3 * REAL_TIME, color="grey", ls="--", lw=1, label="real time")
    latency.set_yscale("log")
    latency.legend()
    _over_time(cached, there, "cached_tokens", f"tokens in the cache, the first {BEGINNING} s")
    cached.set(xlim=(0, BEGINNING), yscale="log")
    _over_time(memory, there, "device_bytes", "memory of the device's arrays, MiB", 2**-20)
    _parts(parts, there)
    _first(first, there)
    with atomic_file(path) as file:
        figure.savefig(file, format=path.suffix.removeprefix("."), dpi=120)


def _over_time(ax: Axes, rows: Rows, key: str, title: str, scale: float = 1.0) -> None:
    """Series as lines, full attention point by point, the window with overlap as the level that it always has."""
    for name in ("stream", "hard-reset"):
        if name in rows:
            values = [scale * value for value in rows[name][key]]
            ax.plot(rows[name]["second"], values, color=COLOURS[name], label=TITLES[name])
    full = sorted((row["second"], scale * row[key]) for row in rows.values() if row["kind"] == "full")
    if full:
        ax.plot(*zip(*full, strict=True), "o-", color=COLOURS["full"], label=TITLES["full"])
    if "recompute" in rows:
        ax.axhline(scale * rows["recompute"][key], color=COLOURS["recompute"], label=TITLES["recompute"])
    ax.set(title=title, xlabel="second of the video")
    ax.grid(alpha=0.3)
    _say_if_empty(ax)


def _say_if_empty(ax: Axes) -> None:
    """A panel whose rows are not measured yet says so."""
    if not (ax.get_lines() or ax.patches):
        ax.text(0.5, 0.5, "not measured yet", transform=ax.transAxes, ha="center", va="center", color="grey")


def _parts(ax: Axes, rows: Rows) -> None:
    """What a second consists of, and how long it takes at other frame rates and for several streams at once."""
    # A bar each: lengths on a logarithmic axis do not add up.
    split = [row["parts_ms"] for row in rows.values() if row["kind"] == "parts"]
    names = [name.removeprefix("parts of ") for name, row in rows.items() if row["kind"] == "parts"]
    for part in PARTS:
        if split:
            bars = [f"{name}: {part}" for name in names], [parts[part] for parts in split]
            ax.barh(*bars, color=PART_COLOURS[part], label=part)
    whole = {name: row["ms"] for name, row in rows.items() if row["kind"] in KINDS}
    if whole:
        ax.barh(list(whole), list(whole.values()), color="tab:grey", label="whole")
    _say_if_empty(ax)
    ax.axvline(1000, color="grey", ls="--", lw=1, label="real time")
    ax.invert_yaxis()
    ax.set(title="ms for a second of the video", xscale="log")
    ax.legend()


def _first(ax: Axes, rows: Rows) -> None:
    for memory in ("stream", "recompute", "full"):
        found = [
            (int(name.split()[-2]), row["first_token_ms"])
            for name, row in rows.items()
            if row["kind"] == "first token" and name.startswith(memory)
        ]
        if found:
            ax.plot(*zip(*sorted(found), strict=True), "o-", color=COLOURS[memory], label=TITLES[memory])
    _say_if_empty(ax)
    ax.set(title="ms to the first token", xlabel="frames seen", xscale="log", yscale="log")
    ax.grid(alpha=0.3)
    if ax.lines:
        counts = sorted({int(count) for line in ax.lines for count in np.asarray(line.get_xdata())})
        ax.set_xticks(counts, [f"{count:,}" for count in counts], minor=False)
        ax.set_xticks([], minor=True)
        ax.legend()
