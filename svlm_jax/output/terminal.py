"""The live view of a stream in a terminal, and plain lines where there is none."""

import collections
import dataclasses
import logging
import statistics
import sys
import time

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from svlm_jax.host.files import writing
from svlm_jax.output.base import Closing
from svlm_jax.output.text import clean_lines, clock
from svlm_jax.streaming.caption import Caption

HISTORY = 60  # chunks whose times make up the statistics
CAPTIONS = 200  # captions remembered, for tall windows
NARROW = 60  # columns; below, numbers stand without bars
LEAST = 4  # rows for captions
STILL = 0.05  # s that a view stands at least: a stream may be faster than the eye, and drawing takes 8 ms
PARTS = (("read", "read"), ("vision", "vision"), ("prefill", "prefill"), ("decode", "decode loop"), ("step", "step"))


@dataclasses.dataclass(frozen=True)
class Status:
    """What a stream is, in words, for the last line of the view; empty parts are left out."""

    model: str = ""
    source: str = ""
    window: str = ""
    device: str = ""


@dataclasses.dataclass
class _Line:
    start: float
    end: float
    text: str


class Terminal(Closing):
    """A sink that shows the stream: captions, the cache's filling, the cost of a second, and how far behind live it is.

    Where the console is no terminal it prints one line a caption, "[00:00:12] text". Log messages appear above the view.
    `close` leaves the last state on the screen and the terminal as it was.
    """

    def __init__(self, status: Status | None = None, console: Console | None = None):
        self._status = status or Status()
        self._console = console or Console(highlight=False)
        self._lines: collections.deque[_Line] = collections.deque(maxlen=CAPTIONS)
        self._costs: collections.deque[dict[str, float]] = collections.deque(maxlen=HISTORY)
        self._last: Caption | None = None
        self._dropped = 0.0
        self._handlers: list[tuple[logging.StreamHandler, object]] = []
        self._live: Live | None = None
        self._drawn = -STILL
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._start()

    def write(self, caption: Caption, frames: np.ndarray | None = None) -> None:
        text = " ".join(clean_lines(caption.text))
        if self._live is None:
            with writing("the terminal"):
                self._console.file.write(f"[{clock(caption.start)[:-4]}] {text or '...'}\n")
                self._console.file.flush()
            return
        quiet = self._lines[-1] if self._lines and not self._lines[-1].text and not text else None
        if quiet:
            quiet.end = caption.end
        else:
            self._lines.append(_Line(caption.start, caption.end, text))
        self._costs.append(_cost(caption))
        self._dropped += caption.dropped
        self._last = caption
        if time.monotonic() - self._drawn >= STILL:
            self._draw(self._live)

    def close(self) -> None:
        if self._live is None:
            return
        live, self._live = self._live, None
        try:
            self._draw(live)  # what came since the last time
        finally:
            for handler, stream in self._handlers:
                handler.setStream(stream)
            live.stop()

    def _start(self) -> None:
        self._live = Live(self._view(), console=self._console, auto_refresh=False)
        before = (sys.stdout, sys.stderr)
        self._live.start(refresh=True)
        # The view has replaced these two by writers that print above it; handlers made earlier hold the old ones.
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream in before:
                self._handlers.append((handler, handler.stream))
                handler.setStream(sys.stderr)

    def _draw(self, live: Live) -> None:
        with writing("the terminal"):
            live.update(self._view(), refresh=True)
        self._drawn = time.monotonic()

    def _view(self) -> RenderableType:
        """Captions above, numbers below; where there is little room, the captions have it."""
        below: list[RenderableType] = [self._status_line()]
        if self._last is not None:
            narrow = self._console.width < NARROW
            below = [_usage(self._last, narrow), _timing(self._costs), self._pace(self._last), *below]
        heights = [len(self._console.render_lines(part, self._console.options)) for part in below]
        while len(below) > 1 and self._console.height - sum(heights) < 1 + LEAST:
            del below[0], heights[0]
        return Group(self._captions(max(1, self._console.height - sum(heights) - 2)), Text(), *below)

    def _captions(self, height: int) -> RenderableType:
        """The newest captions that fit; a run of silence is one quiet line."""
        if not self._lines:
            return Text("waiting for the first caption", style="dim")
        table = Table.grid(padding=(0, 1))
        table.add_column(style="dim", no_wrap=True)
        table.add_column(overflow="fold")
        room = max(1, self._console.width - len(clock(self._lines[-1].start)[:-4]) - 1)
        shown: list[_Line] = []
        for line in reversed(self._lines):
            height -= len(Text(line.text or "silent").wrap(self._console, room))
            if height < 0 and shown:
                break
            shown.insert(0, line)
        for line in shown:
            if line.text:
                table.add_row(clock(line.start)[:-4], Text(line.text, style="bold" if line is self._lines[-1] else ""))
            else:
                table.add_row(clock(line.start)[:-4], Text(f"silent for {line.end - line.start:.0f} s", style="dim"))
        return table

    def _pace(self, caption: Caption) -> Text:
        factor = statistics.median(max(cost["read"], cost["step"]) for cost in self._costs) / 1000
        late = "yellow" if caption.lag >= 1 else ""
        return Text.assemble(
            ("real-time factor ", "dim"),
            (f"{factor:.2f}", "yellow" if factor > 1 else ""),
            ("  lag ", "dim"),
            (f"{caption.lag:.1f} s", late),
            ("  dropped ", "dim"),
            (f"{self._dropped:.1f} s", "yellow" if self._dropped else ""),
            ("  tokens ", "dim"),
            f"{len(caption.tokens)}",
        )

    def _status_line(self) -> Text:
        return Text(
            "  ".join(part for part in dataclasses.astuple(self._status) if part),
            style="dim",
            overflow="ellipsis",
            no_wrap=True,
        )


def _cost(caption: Caption) -> dict[str, float]:
    """Milliseconds per second of video, per part; parts that were not measured are left out."""
    seconds = max(1e-3, caption.end - caption.start)
    parts = {name: getattr(caption.timing, name) for name, _ in PARTS}
    return {name: value / seconds for name, value in parts.items() if value is not None}


def _usage(caption: Caption, narrow: bool) -> Table:
    """Tokens held, per kind, against their limits."""
    table = Table.grid(padding=(0, 1))
    table.add_column(style="dim", no_wrap=True)
    if not narrow:
        table.add_column(width=24)
    table.add_column(justify="right", no_wrap=True)
    for kind, (used, limit) in caption.usage.items():
        numbers = f"{used:,} / {limit:,}"
        bar = ProgressBar(total=max(1, limit), completed=min(used, limit), width=24)
        table.add_row(*((kind, numbers) if narrow else (kind, bar, numbers)))
    return table


def _timing(costs: "collections.deque[dict[str, float]]") -> Table:
    """Milliseconds per second of video: the newest, the median and the 95th percentile of the last minute."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    for _ in range(3):
        table.add_column(justify="right", no_wrap=True)
    table.add_row("ms per s of video", *(Text(name, style="dim") for name in ("now", "median", "95 %")))
    split = "decode" in costs[-1]
    for name, label in PARTS:
        values = [cost[name] for cost in costs if name in cost]
        if values and not (split and name == "step"):
            table.add_row(label, *(f"{value:.0f}" for value in (values[-1], *np.percentile(values, (50, 95)))))
    return table
