"""Records docs/screens: the commands of docs/first_hour.md in terminals of 80 x 24 and 200 x 50: `python docs/first_hour.py`.

Each screen is kept as text, and the small one also as the picture that the page shows. `python docs/first_hour.py 80x24 demo`
records some of them only: those of a size, and of the commands whose screens are named.
"""

import fcntl
import os
import pty
import re
import select
import shlex
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

import pyte
from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.text import Text

FOLDER = Path(__file__).parent / "screens"
SIZES = ((80, 24), (200, 50))
PATIENCE = 240.0  # s for a screen to come
PAUSE = 0.02  # s without output: between two drawings
# name, command, and what stands on the screen when it is taken; None: when the command has ended
SCREENS: tuple[tuple[str, str, str | None], ...] = (
    ("start", "svlm demo --seconds 60", r"starting|compiling|loading"),
    ("demo", "svlm demo --seconds 60", r"0:[45]\d of 1:00"),
    ("demo-end", "svlm demo --seconds 60", None),
    ("doctor", "svlm doctor --model qwen2.5-vl-7b --for h100", None),
    (
        "ask",
        'svlm ask "synthetic:facts?seed=3&minutes=2" "What was on the pink over yellow flag?" --model embedded-facts',
        None,
    ),
    (
        "several",
        'svlm watch "synthetic:match?seed=3&minutes=1" "synthetic:match?seed=5&minutes=2" --model embedded',
        r"1:[1-4]\d of 2:00",
    ),
    (
        "several-end",
        'svlm watch "synthetic:match?seed=3&minutes=1" "synthetic:match?seed=5&minutes=2" --model embedded',
        None,
    ),
    ("mistake", "svlm watch holiday.mp4 --model embedded", None),
)


class Recorded:
    """A terminal in memory, in which one command runs after a prompt."""

    def __init__(self, command: str, columns: int, rows: int, folder: str) -> None:
        self.columns = columns
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self._stream.feed(f"$ {command}\r\n".encode())
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
        environment |= {
            "PYTHONPATH": str(FOLDER.parents[1]),
            "PYTHONWARNINGS": "ignore",
            "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1",
        }
        words = [sys.executable, "-m", "svlm_jax", *shlex.split(command)[1:]]
        self._process = subprocess.Popen(words, stdin=slave, stdout=slave, stderr=slave, cwd=folder, env=environment)
        os.close(slave)

    def until(self, pattern: str | None) -> None:
        """Runs on until the pattern stands on the screen, or the command has ended."""
        deadline, found = time.monotonic() + PATIENCE, False
        while time.monotonic() < deadline:
            found = found or (pattern is not None and re.search(pattern, "\n".join(self.screen.display)) is not None)
            if not select.select([self._master], [], [], PAUSE)[0]:
                if found:  # and what was being drawn is complete
                    return
                continue
            try:
                data = os.read(self._master, 1024)
            except OSError:  # Linux says so when the command has ended
                data = b""
            if not data:
                return
            self._stream.feed(data)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(30)
        os.close(self._master)

    def lines(self) -> list[Text]:
        """The rows of the screen, in colour, without what is empty at the end."""
        rows = [self._row(self.screen.buffer[y]) for y in range(self.screen.lines)]
        while rows and not rows[-1].plain.strip():
            rows.pop()
        return rows

    def _row(self, cells: dict[int, pyte.screens.Char]) -> Text:
        row = Text()
        for x in range(self.columns):
            cell = cells[x]
            style = Style(color=_color(cell.fg), bold=cell.bold, italic=cell.italics, underline=cell.underscore)
            row.append(cell.data, style)
        row.rstrip()
        return row


def _color(name: str) -> Color | None:
    if name == "default":
        return None
    return Color.parse(f"#{name}" if re.fullmatch("[0-9a-f]{6}", name) else name.replace("brown", "yellow"))


def keep(name: str, recorded: Recorded, columns: int, rows: int) -> None:
    """Writes a screen as text and, of the small terminal, as a picture."""
    lines = recorded.lines()
    (FOLDER / f"{name}-{columns}x{rows}.txt").write_text("\n".join(line.plain for line in lines) + "\n", encoding="utf-8")
    if (columns, rows) == SIZES[0]:
        with open(os.devnull, "w", encoding="utf-8") as nowhere:
            console = Console(width=columns, record=True, file=nowhere, force_terminal=True, color_system="truecolor")
            for line in lines:
                console.print(line, no_wrap=True, overflow="crop")
            console.save_svg(str(FOLDER / f"{name}.svg"), title="svlm", unique_id=name)


def main() -> None:
    """Records every screen in every size."""
    FOLDER.mkdir(exist_ok=True)
    sizes = [size for size in SIZES if "{}x{}".format(*size) in sys.argv] or SIZES
    commands = [command for name, command, _ in SCREENS if name in sys.argv] or [command for _, command, _ in SCREENS]
    for columns, rows in sizes:
        with tempfile.TemporaryDirectory() as folder:
            running: dict[str, Recorded] = {}
            for name, command, pattern in SCREENS:
                if command not in commands:
                    continue
                if command not in running:
                    running[command] = Recorded(command, columns, rows, folder)
                running[command].until(pattern)
                keep(name, running[command], columns, rows)
                if pattern is None:
                    running.pop(command).close()


if __name__ == "__main__":
    main()
