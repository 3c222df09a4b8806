"""Progress bars on stderr for what takes long; nothing is shown when stderr is no terminal."""

import contextlib
import sys
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def loading(what: str) -> Iterator[Callable[[int, int], None]]:
    """A function (done, total) that moves a bar: for reading and writing weights."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    shown, together = console.is_terminal, sys.stdout.isatty()  # lines for a terminal appear above the bar
    with Progress(*columns, console=console, transient=True, disable=not shown, redirect_stdout=together) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextlib.contextmanager
def seconds_of(what: str, total: int) -> Iterator[Callable[[float], None]]:
    """A function (seconds watched) that moves a bar."""
    with loading(what) as move:
        yield lambda seconds: move(int(seconds), total)
