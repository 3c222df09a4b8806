"""What stands below the captions of several sources in the live view: a row each, with how far it is and how it goes."""

import dataclasses
from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from svlm_jax.output.panel import Status
from svlm_jax.streaming.caption import Caption
from svlm_jax.streaming.schedule import clock


@dataclasses.dataclass
class _Row:
    status: Status
    last: Caption | None = None
    dropped: float = 0.0
    silent: float | None = None  # stream seconds since when
    ended: str = ""


class Board:
    """Args: statuses: of each source by name; `begin` and `end` say how far it is."""

    def __init__(self, statuses: Mapping[str, Status]) -> None:
        self._rows = {name: _Row(status) for name, status in statuses.items()}

    @property
    def width(self) -> int:
        """Columns of the longest name."""
        return max(map(len, self._rows))

    def add(self, name: str, caption: Caption) -> None:
        row = self._rows[name]
        row.last, row.dropped = caption, row.dropped + caption.dropped
        if not caption.silent:
            row.silent = None
        elif row.silent is None:
            row.silent = caption.start

    def end(self, name: str, how: str) -> None:
        """A source is over: "ended", or "failed"."""
        self._rows[name].ended = how

    def view(self, most: int) -> RenderableType:
        """At most so many lines; where they are too few, what runs comes before what has ended."""
        rows = list(self._rows.items())
        shown = rows if len(rows) <= most else sorted(rows, key=lambda item: bool(item[1].ended))[: max(0, most - 1)]
        table = Table.grid(padding=(0, 2))
        for justify in ("left", "right", "right", "left", "left"):
            table.add_column(justify=justify, no_wrap=True)
        for name, row in shown:
            table.add_row(Text(name, style="cyan"), *_cells(row))
        left = len(rows) - len(shown)
        return table if not left else Group(table, Text(f"and {left} more", style="dim"))


def _cells(row: _Row) -> tuple[RenderableType, ...]:
    status, position = row.status, row.status.begin if row.last is None else row.last.end
    at, share = clock(position), ""
    if status.end is not None:
        at = f"{at} of {clock(status.end)}"
        share = f"{min(100.0, 100 * (position - status.begin) / max(status.end - status.begin, 1e-3)):.0f} %"
    if row.ended:
        state = Text(row.ended, style="red" if row.ended == "failed" else "dim")
    elif row.silent is not None:
        state = Text(f"silent for {position - row.silent:.0f} s", style="dim")
    else:
        state = Text("" if row.last is not None else "waiting for the first caption", style="yellow")
    late = "" if row.last is None or row.last.lag < 1 else f"lag {row.last.lag:.1f} s"
    lost = f"dropped {row.dropped:.1f} s" if row.dropped else ""
    return Text(at), Text(share), Text("  ".join(part for part in (late, lost) if part), style="yellow"), state
