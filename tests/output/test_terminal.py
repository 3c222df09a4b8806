"""The live view shows what happens, leaves the terminal as it was, and becomes plain lines where there is no terminal."""

import io
import logging
import re
import sys

import pytest
from rich.console import Console

from svlm_jax.errors import OutputError
from svlm_jax.output import Status, Terminal, terminal
from svlm_jax.streaming.caption import Timing
from tests.output.sink_helpers import caption

USAGE = {"system": (11, 11), "previous text": (900, 1029), "vision": (11_520, 11_520), "turns": (600, 775)}
STATUS = Status(model="tiny", source="match.mp4", window="16 s", device="cpu")


def console(width=100, height=40, **options):
    return Console(file=io.StringIO(), force_terminal=True, width=width, height=height, _environ={}, **options)


def watch(captions, **options):
    """The rows of the view as it stands in the end, and all that was sent to the terminal."""
    screen = console(**options)
    with Terminal(STATUS, screen) as view:
        for item in captions:
            view.write(item)
        lines = screen.render_lines(view._view(), pad=False)
    return ["".join(segment.text for segment in line).rstrip() for line in lines], screen.file.getvalue()


def test_everything_is_shown():
    spoken = [
        caption(0.0, "Kick-off [bold]now[/bold]"),
        caption(1.0),
        caption(2.0),
        caption(3661.0, "late", usage=USAGE, lag=2.5),
    ]
    rows, _ = watch(spoken)
    text = "\n".join(rows)
    assert rows[:3] == ["00:00:00 Kick-off [bold]now[/bold]", "00:00:01 silent for 2 s", "01:01:01 late"]
    for kind, (used, limit) in USAGE.items():
        assert re.search(rf"^{kind} +━+.* {used:,} / {limit:,}$", text, re.M), kind
    for part, value in {"read": 12, "vision": 30, "prefill": 40, "decode loop": 200}.items():
        assert re.search(rf"^{part} +{value} +{value} +{value}$", text, re.M), part
    assert not re.search(r"^step ", text, re.M)
    assert "lag 2.5 s" in text and "real-time factor 0.27" in text and "tokens 3" in text
    assert rows[-1] == "tiny  match.mp4  16 s  cpu"


def test_a_stream_faster_than_the_eye_is_not_drawn_for_every_second(monkeypatch):
    now, drawn = [100.0], []
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    draw = Terminal._draw
    monkeypatch.setattr(Terminal, "_draw", lambda *arguments: drawn.append(now[0]) or draw(*arguments))
    screen = console()
    with Terminal(STATUS, screen) as view:
        for i in range(20):
            view.write(caption(float(i), f"word {i}"))
            now[0] += 0.02
    assert drawn == pytest.approx([100 + 0.06 * i for i in range(7)] + [100.4]), "and what is left at the end"
    assert "word 19" in screen.file.getvalue()


def test_bars_grow_with_what_is_kept():
    lengths = []
    for used in (0, 250, 500, 1000):
        rows, _ = watch([caption(0.0, usage={"vision": (used, 1000)})], no_color=True)
        lengths.append(next(row for row in rows if row.startswith("vision")).count("━"))
    assert lengths == [0, 6, 12, 24]


def test_an_unsplit_second_shows_the_step_and_times_are_per_second_of_video():
    rows, _ = watch([caption(0.0, end=4.0, timing=Timing(read=80.0, step=400.0))])
    text = "\n".join(rows)
    assert re.search(r"^step +100 ", text, re.M) and re.search(r"^read +20 ", text, re.M)
    assert "decode" not in text and "real-time factor 0.10" in text


def test_dropped_seconds_add_up():
    rows, _ = watch([caption(0.0), caption(2.0, dropped=1.0), caption(5.0, dropped=2.0)])
    assert any("dropped 3.0 s" in row for row in rows)


@pytest.mark.parametrize(("width", "height"), [(28, 14), (40, 24), (59, 12), (80, 24), (300, 80), (80, 6)])
def test_the_view_fits_any_terminal(width, height):
    rows, _ = watch([caption(float(i), f"words number {i} " * 4, usage=USAGE) for i in range(50)], width=width, height=height)
    assert len(rows) <= max(height, 6) and all(len(row) <= width for row in rows)
    assert "words" in rows[0]
    if width >= 40:
        assert any("number 49" in row for row in rows)


def test_no_color(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    screen = Console(file=io.StringIO(), force_terminal=True, width=80, height=30)
    with Terminal(STATUS, screen) as view:
        view.write(caption(0.0, "word", usage=USAGE, lag=9.0))
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", screen.file.getvalue())


def test_the_words_cannot_control_the_terminal():
    _, output = watch([caption(0.0, "a\x1b[2Jb\x07c\rd")])
    assert "\x1b[2J" not in output and "\x07" not in output and "a[2Jbc" in output


class Refusal(BaseException):
    """Like KeyboardInterrupt: not an Exception."""


@pytest.mark.parametrize("failure", [None, ValueError, Refusal])
def test_the_terminal_is_restored_whatever_happens(failure):
    streams = sys.stdout, sys.stderr
    screen = console()
    try:
        with Terminal(STATUS, screen) as view:
            view.write(caption(0.0, "word"))
            assert sys.stderr is not streams[1]
            if failure:
                raise failure
    except (ValueError, Refusal):
        pass
    assert (sys.stdout, sys.stderr) == streams
    output = screen.file.getvalue()
    assert output.rindex("\x1b[?25h") > output.rindex("\x1b[?25l")  # the cursor is back
    view.close()


def test_log_messages_appear_above_the_view_and_handlers_get_their_stream_back(capsys):
    root = logging.getLogger()
    handler = logging.StreamHandler()
    root.addHandler(handler)
    try:
        before = handler.stream
        screen = console()
        with Terminal(STATUS, screen) as view:
            view.write(caption(0.0, "word"))
            logging.getLogger("svlm_jax.test").warning("the camera is [gone]")
            view.write(caption(1.0, "next"))
        output = screen.file.getvalue()
        assert "the camera is [gone]" in output
        assert output.index("the camera") < output.index("next")
        assert handler.stream is before and capsys.readouterr().err == ""
    finally:
        root.removeHandler(handler)


def test_without_a_terminal_there_is_one_line_a_caption():
    file = io.StringIO()
    with Terminal(STATUS, Console(file=file, width=30)) as view:
        view.write(caption(12.0, "a line that is longer than thirty columns [red]and[/red] has\nbreaks"))
        view.write(caption(13.0))
        view.write(caption(360000.0, "late"))
    assert file.getvalue().splitlines() == [
        "[00:00:12] a line that is longer than thirty columns [red]and[/red] has breaks",
        "[00:00:13] ...",
        "[100:00:00] late",
    ]


def test_a_closed_pipe_is_one_sentence():
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError(32, "Broken pipe")

    view = Terminal(STATUS, Console(file=Closed()))
    with pytest.raises(OutputError, match=r"^the terminal cannot be written: Broken pipe\.$"):
        view.write(caption(0.0, "word"))


def test_memory_stays_bounded():
    with Terminal(STATUS, console()) as view:
        for _ in range(1000):
            view._lines.append(view._lines.__class__)
            view._costs.append({"read": 1.0, "step": 1.0})
        assert len(view._lines) <= 200 and len(view._costs) <= 60
        view._lines.clear()
