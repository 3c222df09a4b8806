"""What a program is doing, on stderr, while it has nothing else to show; nothing is shown when stderr is no terminal.

Cheap to import: the first sign must come before jax is imported, which takes seconds.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator

from rich.console import Console, RenderableType
from rich.progress import Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from svlm_jax.host.redact import redact


class _Tail(ProgressColumn):
    """A bar, its share and the time left where the end is known, else the seconds so far."""

    def render(self, task: Task) -> RenderableType:
        if not task.total:
            return Text(f"{task.elapsed or 0.0:.0f} s", style="dim")
        grid = Table.grid(padding=(0, 1))
        left = "" if task.time_remaining is None else f"{task.time_remaining:.0f} s left"
        bar = ProgressBar(total=task.total, completed=task.completed, width=24)
        grid.add_row(bar, f"{task.percentage:3.0f} %", Text(left, style="dim"))
        return grid


class Stages:
    """The stages of a program, one after the other: a moving sign, what it is doing, and for how long or how much of it.

    A context manager; `stop` ends the display early, for good.
    """

    def __init__(self, first: str) -> None:
        console = Console(stderr=True)
        shown, together = console.is_terminal, sys.stdout.isatty()  # lines for a terminal appear above the sign
        columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), _Tail()
        self._bar = Progress(*columns, console=console, transient=True, disable=not shown, redirect_stdout=together)
        self._task = self._bar.add_task(redact(first, sys.argv), total=None)

    def enter(self, stage: str) -> None:
        """A new stage begins, and its seconds at 0."""
        self._bar.remove_task(self._task)
        self._task = self._bar.add_task(redact(stage, sys.argv), total=None)

    def move(self, done: float, total: float) -> None:
        """So much of this stage is done."""
        self._bar.update(self._task, completed=done, total=total)

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """The sign leaves the screen while something else is printed there."""
        self._bar.stop()
        try:
            yield
        finally:
            self._bar.start()

    def stop(self) -> None:
        """Nothing more is shown."""
        self._bar.stop()

    def __enter__(self) -> "Stages":
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()


@contextlib.contextmanager
def loading(what: str) -> Iterator[Callable[[int, int], None]]:
    """A function (done, total) that moves a bar: for reading and writing weights."""
    with Stages(what) as stages:
        yield stages.move


@contextlib.contextmanager
def seconds_of(what: str, total: int) -> Iterator[Callable[[float], None]]:
    """A function (seconds watched) that moves a bar."""
    with Stages(what) as stages:
        yield lambda seconds: stages.move(int(seconds), total)


def prose(*, stderr: bool = False) -> Console:
    """A console for sentences: between words in a terminal, and nowhere in a file, lines are broken."""
    console = Console(stderr=stderr, highlight=False)
    console.soft_wrap = not console.is_terminal
    return console
