"""What stands below the captions in the live view: how far it is, how full the cache is, what a second costs."""

import collections
import dataclasses
import statistics
from collections.abc import Mapping

import numpy as np
from rich.console import RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from svlm_jax.streaming.caption import Caption
from svlm_jax.streaming.schedule import clock

HISTORY = 60  # chunks whose times make up the statistics
NARROW, WIDE = 60, 100  # columns: below, numbers stand without bars; from, numbers stand beside each other
PARTS = (("read", "read"), ("vision", "vision"), ("prefill", "prefill"), ("decode", "decode loop"), ("step", "step"))


@dataclasses.dataclass(frozen=True)
class Status:
    """What a stream is, in words, for the last line of the view; empty parts are left out.

    begin, end: stream time in seconds at which watching begins and, if that is known, ends.
    """

    model: str = ""
    source: str = ""
    window: str = ""
    device: str = ""
    begin: float = 0.0
    end: float | None = None

    @property
    def line(self) -> Text:
        parts = (self.model, self.source, self.window, self.device)
        return Text("  ".join(part for part in parts if part), style="dim", overflow="ellipsis", no_wrap=True)


class Costs:
    """What the seconds of the last minute cost, and what was dropped since the beginning."""

    def __init__(self) -> None:
        self.recent: collections.deque[dict[str, float]] = collections.deque(maxlen=HISTORY)
        self.dropped = 0.0

    def add(self, caption: Caption) -> None:
        seconds = max(1e-3, caption.end - caption.start)
        parts = {name: getattr(caption.timing, name) for name, _ in PARTS}
        # Milliseconds per second of video; parts that were not measured are left out.
        self.recent.append({name: value / seconds for name, value in parts.items() if value is not None})
        self.dropped += caption.dropped

    def table(self) -> Table:
        """Milliseconds per second of video: the newest, the median and the 95th percentile of the last minute."""
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim", no_wrap=True)
        for _ in range(3):
            table.add_column(justify="right", no_wrap=True)
        table.add_row("ms per s of video", *(Text(name, style="dim") for name in ("now", "median", "95 %")))
        split = "decode" in self.recent[-1]
        for name, label in PARTS:
            values = [cost[name] for cost in self.recent if name in cost]
            if values and not (split and name == "step"):
                table.add_row(label, *(f"{value:.0f}" for value in (values[-1], *np.percentile(values, (50, 95)))))
        return table

    def pace(self, caption: Caption) -> Text:
        factor = statistics.median(max(cost["read"], cost["step"]) for cost in self.recent) / 1000
        return Text.assemble(
            ("real-time factor ", "dim"),
            (f"{factor:.2f}", "yellow" if factor > 1 else ""),
            ("  lag ", "dim"),
            (f"{caption.lag:.1f} s", "yellow" if caption.lag >= 1 else ""),
            ("  dropped ", "dim"),
            (f"{self.dropped:.1f} s", "yellow" if self.dropped else ""),
            ("  tokens ", "dim"),
            f"{len(caption.tokens)}",
        )


def usage(kinds: Mapping[str, tuple[int, int]], narrow: bool) -> Table:
    """Tokens held, per kind, against their limits."""
    table = Table.grid(padding=(0, 1))
    table.add_column(style="dim", no_wrap=True)
    if not narrow:
        table.add_column(width=24)
    table.add_column(justify="right", no_wrap=True)
    for kind, (used, limit) in kinds.items():
        numbers = f"{used:,} / {limit:,}"
        bar = ProgressBar(total=max(1, limit), completed=min(used, limit), width=24)
        table.add_row(*((kind, numbers) if narrow else (kind, bar, numbers)))
    return table


def side_by_side(left: RenderableType, right: RenderableType) -> Table:
    table = Table.grid(padding=(0, 6))
    table.add_row(left, right)
    return table


def progress(status: Status, position: float, seconds: float, wall: float) -> RenderableType:
    """Where the stream stands: of how much, and how long the rest will take, where its end is known.

    seconds: of video that took `wall` seconds, after the first caption, whose programs had to be compiled.
    """
    if status.end is None:
        return Text(f"at {clock(position)}", style="dim")
    length, done = max(status.end - status.begin, 1e-3), min(max(position - status.begin, 0.0), status.end - status.begin)
    left = ""
    if seconds > 0:
        left = f"{clock((length - done) * wall / seconds)} left, {seconds / max(wall, 1e-3):.1f} x real time"
    table = Table.grid(padding=(0, 1))
    bar = ProgressBar(total=length, completed=done, width=24)
    share = f"{100 * done / length:3.0f} %"
    table.add_row(Text(f"{clock(position)} of {clock(status.end)}"), bar, share, Text(left, style="dim", no_wrap=True))
    return table
