"""A line that people type below a live view, without the terminal's own echo, which would tear the view apart."""

import contextlib
import os
import select
import sys
import threading
from collections.abc import Callable
from typing import Self

BACKSPACE, KILL, ESCAPE = ("\x7f", "\b"), "\x15", "\x1b"
STOP_SECONDS = 0.2  # that the reading thread may notice late that it is not wanted any more


class LineEditor:
    """Keys in, lines out. `text` is what has been typed of the next line."""

    def __init__(self) -> None:
        self.text = ""
        self._sequence = ""  # of an arrow or function key, from its escape on

    def keys(self, typed: str) -> list[str]:
        """The lines that these keys complete; empty ones are left out."""
        lines = []
        for key in typed:
            if self._sequence or key == ESCAPE:
                self._escape(key)
            elif key in "\r\n":
                lines.append(self.text.strip())
                self.text = ""
            elif key in BACKSPACE:
                self.text = self.text[:-1]
            elif key == KILL:
                self.text = ""
            elif key.isprintable():
                self.text += key
        return [line for line in lines if line]

    def _escape(self, key: str) -> None:
        """Swallows `ESC [ ... letter` and `ESC O letter`; any other key ends a sequence at once."""
        self._sequence += key
        inside = self._sequence in (ESCAPE, ESCAPE + "[", ESCAPE + "O")
        if not inside and not (self._sequence.startswith(ESCAPE + "[") and not key.isalpha() and key != "~"):
            self._sequence = ""


class Keyboard:
    """Reads a terminal key by key on a thread while it is open; Ctrl-C stays a signal. The terminal is put back at the end.

    Args:
      typed: gets each complete line.
      changed: is called after every key that did something.
    """

    def __init__(self, editor: LineEditor, typed: Callable[[str], None], changed: Callable[[], None]) -> None:
        self._editor, self._typed, self._changed = editor, typed, changed
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, name="svlm-keyboard", daemon=True)

    @staticmethod
    def there() -> bool:
        """Whether somebody can type: stdin is a terminal that can be read key by key."""
        try:
            import termios  # noqa: F401 - not on Windows
        except ImportError:
            return False
        return sys.stdin is not None and sys.stdin.isatty()

    def __enter__(self) -> Self:
        import termios
        import tty

        self._file = sys.stdin.fileno()
        self._before = termios.tcgetattr(self._file)
        tty.setcbreak(self._file)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        import termios

        self._stop.set()
        self._thread.join(2 * STOP_SECONDS)
        with contextlib.suppress(termios.error):  # the terminal has gone
            termios.tcsetattr(self._file, termios.TCSADRAIN, self._before)

    def _read(self) -> None:
        rest = b""
        while not self._stop.is_set():
            if not select.select([self._file], [], [], STOP_SECONDS)[0]:
                continue
            try:
                data = os.read(self._file, 1024)
            except OSError:
                return
            if not data:
                return
            rest += data
            text = rest.decode(errors="ignore")
            try:
                rest.decode()
                rest = b""
            except UnicodeDecodeError as error:  # a character whose other bytes have not come yet, or none at all
                rest = rest[error.start :] if error.end == len(rest) and len(rest) - error.start < 4 else b""
            for line in self._editor.keys(text):
                self._typed(line)
            self._changed()
