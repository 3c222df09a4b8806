"""A progress bar for what takes long: reading and writing weights."""

import contextlib
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def loading(what: str) -> Iterator[Callable[[int, int], None]]:
    """A function (done, total) that moves a bar on stderr; nothing is shown when stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
