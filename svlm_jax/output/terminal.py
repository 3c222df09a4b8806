"""The live view of a stream in a terminal, and plain lines where there is none.

00:00:07 captions, answers and messages, for good: they scroll as everything in a terminal does
00:00:08 ...
                                                    the panel below is drawn anew every second
0:08 of 2:00  ━━━━━                7 %  0:11 left
vision        ━━━━━━━━━━━━━━━━━━━  192 / 192
ask> a question that is being typed
"""

import contextlib
import dataclasses
import logging
import sys
import threading
import time
from collections.abc import Callable

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from svlm_jax.errors import OutputError
from svlm_jax.host.files import writing
from svlm_jax.output.answer import AnswerRecord
from svlm_jax.output.base import Closing
from svlm_jax.output.board import Board
from svlm_jax.output.panel import NARROW, WIDE, Costs, Status, progress, side_by_side, usage
from svlm_jax.output.text import clean_lines, clock
from svlm_jax.output.typed_line import Keyboard, LineEditor
from svlm_jax.streaming.caption import Caption

LEAST = 4  # rows above the panel, for captions
STILL = 0.05  # s that a view stands at least: a stream may be faster than the eye, and drawing takes 8 ms
STALL = 1.5  # s without a caption, after which the view says what it waits for
TICK = 0.25  # s between drawings while nothing comes, so that the sign of waiting moves
PROMPT = "ask> "


@dataclasses.dataclass(frozen=True)
class _Drawn:
    """What `view` returns at the moment at which it is drawn."""

    view: Callable[[], RenderableType]

    def __rich__(self) -> RenderableType:
        return self.view()


@dataclasses.dataclass
class _Silence:
    start: float
    end: float


class Terminal(Closing):
    """A sink that shows the stream: captions and answers above, and below how far it is, the cache, and the cost of a second.

    All that is printed above the panel goes through here, so that nothing is drawn over; log messages too. Where the console
    is no terminal it prints one line a caption, "[00:00:12] text". `close` leaves the last state on the screen and the
    terminal as it was.

    Args:
      board: of several sources, whose names then stand before their captions; a row each instead of one stream's numbers.
      live: False for lines alone, in a terminal too.
      ask: gets each line that is typed into the view; None: there is no line to type into.
    """

    def __init__(
        self,
        status: Status | None = None,
        console: Console | None = None,
        *,
        board: Board | None = None,
        ask: Callable[[str], None] | None = None,
        live: bool = True,
    ):
        self._status, self._board = status or Status(), board
        self._console = console or Console(highlight=False)
        self._costs = Costs()
        self._above: list[RenderableType] = []  # rows that wait for the next drawing
        self._silence: _Silence | None = None
        self._last: Caption | None = None
        self._seconds, self._first, self._wall = 0.0, 0.0, 0.0  # of video after the first caption, and of time
        self._stage, self._since = "", time.monotonic()
        self._waiting = Spinner("dots")
        self._handlers: list[tuple[logging.StreamHandler, object]] = []
        self._live: Live | None = None
        self._drawn = -STILL
        self._lock = threading.RLock()  # the keyboard and the clock draw too
        self._closed = threading.Event()
        self._editor = LineEditor() if ask is not None else None
        self._keyboard = contextlib.ExitStack()
        self.takes_keys = False  # whether there is a line to type into
        if live and self._console.is_terminal and not self._console.is_dumb_terminal:
            self._start()
            if ask is not None and self._editor is not None and Keyboard.there():
                self.takes_keys = True
                self._keyboard.enter_context(Keyboard(self._editor, ask, self._keys))

    def write(self, caption: Caption, frames: np.ndarray | None = None, name: str = "") -> None:
        """Shows a caption; `name` is that of its source on the board, where there is one."""
        text = " ".join(clean_lines(caption.text))
        if self._live is None:
            self._plain(f"[{clock(caption.start)[:-4]}] {name}{': ' if name else ''}{text or '...'}")
            return
        with self._lock:
            self._costs.add(caption)
            now = time.monotonic()
            if self._last is None:
                self._first = now
            else:
                self._seconds += caption.end - caption.start
                self._wall = now - self._first
            self._last = caption
            if self._board is not None:
                self._board.add(name, caption)
                if text:
                    label = Text(f"{name:{self._board.width}}", style="cyan")
                    self._above.append(_row(clock(caption.start)[:-4], Text(text), label))
            elif text:
                self._end_silence()
                self._above.append(_row(clock(caption.start)[:-4], Text(text)))
            elif self._silence is None:
                self._silence = _Silence(caption.start, caption.end)
            else:
                self._silence.end = caption.end
            self.stage("")
            self._draw_if_due()

    def answer(self, record: AnswerRecord) -> None:
        moment = clock(record.at)[:-4]
        if self._live is None:
            self._plain(f"[{moment}] {record.question}\n      {record.text}\n      {record.cost}")
            return
        with self._lock:
            self._end_silence()
            self._above.append(_row(moment, Text(record.question, style="bold")))
            self._above.append(_row("", Text(record.text, style="green")))
            self._above.append(_row("", Text(record.cost, style="dim")))
            self._draw()

    def say(self, message: str) -> None:
        """Prints a message above the panel, or as a line of its own."""
        if self._live is None:
            self._plain(message)
            return
        with self._lock:
            self._above.append(Text(message, style="yellow"))
            self._draw()

    def end(self, name: str, how: str) -> None:
        """A source of the board is over: "ended", or "failed"."""
        with self._lock:
            if self._board is not None:
                self._board.end(name, how)

    def stage(self, name: str) -> None:
        """What the program does now; the view says so when it takes long."""
        self._stage, self._since = name, time.monotonic()

    def close(self) -> None:
        if self._live is None:
            return
        self._keyboard.close()
        self._closed.set()
        with self._lock:
            live, self._live = self._live, None
            self.stage("")
            self._editor = None
            try:
                self._end_silence()
                self._draw(live)  # what came since the last time
            finally:
                for handler, stream in self._handlers:
                    handler.setStream(stream)
                live.stop()

    def _plain(self, line: str) -> None:
        with writing("the terminal"):
            if self._console.is_terminal:
                self._console.print(Text(line))  # breaks lines between words, which a terminal by itself does not
            else:
                self._console.file.write(f"{line}\n")
                self._console.file.flush()

    def _start(self) -> None:
        self._live = Live(_Drawn(self._view), console=self._console, auto_refresh=False)
        before = (sys.stdout, sys.stderr)
        self._live.start(refresh=True)
        # The view has replaced these two by writers that print above it; handlers made earlier hold the old ones.
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream in before:
                self._handlers.append((handler, handler.stream))
                handler.setStream(sys.stderr)
        threading.Thread(target=self._tick, name="svlm-view", daemon=True).start()

    def _tick(self) -> None:
        while not self._closed.wait(TICK):
            with self._lock, contextlib.suppress(OutputError):  # whoever writes the next caption hears of it
                if self._live is not None and time.monotonic() - self._drawn >= TICK:
                    self._draw()

    def _keys(self) -> None:
        with self._lock:
            if self._live is not None:
                self._draw()

    def _end_silence(self) -> None:
        """A run of silence is one quiet line, printed when it is over; until then it stands in the panel."""
        if self._silence is not None:
            self._above.append(_quiet(self._silence))
            self._silence = None

    def _draw_if_due(self) -> None:
        if time.monotonic() - self._drawn >= STILL:
            self._draw()

    def _draw(self, live: Live | None = None) -> None:
        """Prints what waits above the panel, and the panel below it."""
        live = live or self._live
        assert live is not None
        above, self._above = self._above, []
        with writing("the terminal"):
            if above:
                self._console.print(Group(*above))  # draws the panel too
            else:
                live.refresh()
        self._drawn = time.monotonic()

    def _view(self) -> RenderableType:
        """The panel. Where there is little room, the captions have it: parts leave from the top."""
        with self._lock:
            if self._board is not None:
                bottom = self._bottom()
                room = self._console.height - len(bottom) - 2 - LEAST
                return Group(Text(), self._board.view(max(1, room)), *bottom)
            parts = self._numbers()
            heights = [len(self._console.render_lines(part, self._console.options)) for part in parts]
            bottom = self._bottom()
            while parts and self._console.height - sum(heights) - len(bottom) < 1 + LEAST:
                del parts[0], heights[0]
            return Group(*parts, *bottom)

    def _numbers(self) -> list[RenderableType]:
        if self._last is None:
            return []
        kinds, costs = usage(self._last.usage, self._console.width < NARROW), self._costs.table()
        numbers: list[RenderableType] = [side_by_side(kinds, costs)] if self._console.width >= WIDE else [kinds, costs]
        where = progress(self._status, self._last.end, self._seconds, self._wall)
        return [Text(), *numbers, self._costs.pace(self._last), where]

    def _bottom(self) -> list[RenderableType]:
        """One line each: the silence that goes on, what is waited for, what the stream is, the line to type into."""
        lines: list[RenderableType] = []
        if self._silence is not None:
            lines.append(_quiet(self._silence))
        waited = time.monotonic() - self._since
        if self._last is None or (self._stage and waited >= STALL):
            self._waiting.update(text=Text(f"{self._stage or 'waiting for the first caption'}, {waited:.0f} s", style="yellow"))
            lines.append(self._waiting)
        lines.append(self._status.line)
        if self._editor is not None:
            room = max(1, self._console.width - len(PROMPT) - 2)
            lines.append(Text.assemble((PROMPT, "bold green"), self._editor.text[-room:], ("▏", "green")))
        return lines


def _row(moment: str, words: Text, label: Text | None = None) -> Table:
    """Words beside their time and label: broken between words, and within one only if it is longer than a line."""
    table = Table.grid(padding=(0, 1))
    table.add_column(style="dim", no_wrap=True, width=8 if len(moment) <= 8 else None)
    if label is not None:
        table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row(moment, *(part for part in (label, words) if part is not None))
    return table


def _quiet(silence: _Silence) -> Table:
    return _row(clock(silence.start)[:-4], Text(f"silent for {silence.end - silence.start:.0f} s", style="dim"))
