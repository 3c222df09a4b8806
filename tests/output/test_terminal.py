"""The live view shows what happens, leaves the terminal as it was, and becomes plain lines where there is no terminal."""

import dataclasses
import io
import logging
import os
import re
import sys
import termios
import time

import pyte
import pytest
from rich.console import Console

from svlm_jax.errors import OutputError
from svlm_jax.output import AnswerRecord, Board, Status, Tally, Terminal, tally, terminal
from svlm_jax.output.typed_line import LineEditor
from svlm_jax.streaming.caption import Timing
from tests.output.sink_helpers import answer, caption

USAGE = {"system": (11, 11), "previous text": (900, 1029), "vision": (11_520, 11_520), "turns": (600, 775)}
STATUS = Status(model="tiny", source="match.mp4", window="16 s", device="cpu")


def console(width=100, height=40, **options):
    return Console(file=io.StringIO(), force_terminal=True, width=width, height=height, _environ={}, **options)


def screen_of(output, width=100, height=40):
    """(what has scrolled out at the top, what stands on the screen), as rows without what is blank behind them."""
    emulator = pyte.HistoryScreen(width, height, history=10_000)
    stream = pyte.Stream(emulator)
    stream.feed(output.replace("\n", "\r\n"))
    gone = ["".join(row[x].data for x in range(width)).rstrip() for row in emulator.history.top]
    return gone, [row.rstrip() for row in emulator.display]


def watch(items, width=100, height=40, status=STATUS, **options):
    """(scrollback, screen, all that was sent) after these captions and answers, while the view is still there."""
    screen = console(width, height)
    with Terminal(status, screen, **options) as view:
        for item in items:
            (view.answer if isinstance(item, AnswerRecord) else view.write)(item)
        view._draw()
        output = screen.file.getvalue()
    return *screen_of(output, width, height), output


def test_everything_is_shown():
    spoken = [
        caption(0.0, "Kick-off [bold]now[/bold]"),
        caption(1.0),
        caption(2.0),
        caption(3661.0, "late", usage=USAGE, lag=2.5),
    ]
    _, rows, _ = watch(spoken, width=80)
    text = "\n".join(rows)
    assert rows[:3] == ["00:00:00 Kick-off [bold]now[/bold]", "00:00:01 silent for 2 s", "01:01:01 late"]
    for kind, (used, limit) in USAGE.items():
        assert re.search(rf"^{kind} +━+.* {used:,} / {limit:,}$", text, re.M), kind
    for part, value in {"read": 12, "vision": 30, "prefill": 40, "decode loop": 200}.items():
        assert re.search(rf"^{part} +{value} +{value} +{value}$", text, re.M), part
    assert not re.search(r"^step ", text, re.M)
    assert "lag 2.5 s" in text and "real-time factor 0.27" in text and "tokens 3" in text
    assert [row for row in rows if row][-1] == "tiny  match.mp4  16 s  cpu"


def test_a_silence_that_goes_on_stands_in_the_panel_and_is_printed_once_when_it_ends():
    gone, rows, _ = watch([caption(float(i)) for i in range(5)])
    assert "00:00:00 silent for 5 s" in rows and not gone
    _, rows, _ = watch([*(caption(float(i)) for i in range(5)), caption(5.0, "word")])
    assert rows[:2] == ["00:00:00 silent for 5 s", "00:00:05 word"]
    assert sum("silent" in row for row in rows) == 1


def test_captions_that_scroll_out_can_be_scrolled_back_to():
    gone, rows, _ = watch([caption(float(i), f"word {i}", usage=USAGE) for i in range(60)], width=80, height=24)
    told = [row for row in gone + rows if " word " in row]
    assert told == [f"00:00:{i:02d} word {i}" for i in range(60)]
    assert sum(" word " in row for row in gone) >= 40
    assert not any("━" in row or "ms per s" in row for row in gone), "the panel leaves nothing behind"


def test_answers_stay_on_the_screen_whatever_is_drawn_after_them():
    items = [caption(0.0, "before"), answer(1.0, "Who scored?", "red did", choices=None), caption(1.0, "after", usage=USAGE)]
    _, rows, _ = watch(items)
    assert rows[:5] == [
        "00:00:00 before",
        "00:00:01 Who scored?",
        "         red did",
        "         20 ms to the first token; read 0:00-0:02",
        "00:00:01 after",
    ]


def test_a_file_shows_how_far_it_is_and_what_is_left(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    status = dataclasses.replace(STATUS, begin=10.0, end=130.0)
    screen = console(80, 24)
    with Terminal(status, screen) as view:
        for i in range(30):  # ten times as fast as it plays
            view.write(caption(10.0 + i, f"word {i}"))
            now[0] += 0.1
        view._draw()
        rows = screen_of(screen.file.getvalue(), 80, 24)[1]
    assert any(re.search(r"^0:40 of 2:10 [━╺╸]+ +25 % 0:0[89] left, 10.[0-9] x real time$", row) for row in rows), rows
    assert any(row.startswith("at 0:01") for row in watch([caption(0.0, "live")])[1]), (
        "nothing is left of a stream without an end"
    )


def test_the_view_says_what_it_waits_for(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    screen = console()
    with Terminal(STATUS, screen) as view:
        view.write(caption(0.0, "word"))
        view.stage("waiting for video")
        now[0] += 0.5
        view._draw()
        assert not any("waiting" in row for row in screen_of(screen.file.getvalue())[1])
        now[0] += 6.6
        view._draw()
        assert any("waiting for video, 7 s" in row for row in screen_of(screen.file.getvalue())[1])
        view.write(caption(1.0, "next"))
        view._draw()
        assert not any("waiting" in row for row in screen_of(screen.file.getvalue())[1])


def test_the_sign_of_waiting_moves_by_itself():
    screen = console()
    with Terminal(STATUS, screen) as view:
        view.stage("compiling")
        before = len(screen.file.getvalue())
        deadline = time.monotonic() + 10
        while len(screen.file.getvalue()) == before:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert "compiling" in screen.file.getvalue()


def test_a_stream_faster_than_the_eye_is_not_drawn_for_every_second(monkeypatch):
    now, drawn = [100.0], []
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(terminal, "TICK", 1e3)
    draw = Terminal._draw
    monkeypatch.setattr(Terminal, "_draw", lambda *arguments: drawn.append(now[0]) or draw(*arguments))
    screen = console()
    with Terminal(STATUS, screen) as view:
        for i in range(20):
            view.write(caption(float(i), f"word {i}"))
            now[0] += 0.02
    assert drawn == pytest.approx([100 + 0.06 * i for i in range(7)] + [100.4]), "and what is left at the end"
    gone, rows = screen_of(screen.file.getvalue())
    assert [row for row in gone + rows if " word " in row] == [f"00:00:{i:02d} word {i}" for i in range(20)]


def test_bars_grow_with_what_is_kept():
    lengths = []
    for used in (0, 250, 500, 1000):
        screen = console(width=80, no_color=True)
        with Terminal(STATUS, screen) as view:
            view.write(caption(0.0, usage={"vision": (used, 1000)}))
        rows = screen_of(screen.file.getvalue(), 80)[1]
        lengths.append(next(row for row in rows if row.startswith("vision ") and "1,000" in row).count("━"))
    assert lengths == [0, 6, 12, 24]


def test_an_unsplit_second_shows_the_step_and_times_are_per_second_of_video():
    text = "\n".join(watch([caption(0.0, end=4.0, timing=Timing(read=80.0, step=400.0))], width=80)[1])
    assert re.search(r"^step +100 ", text, re.M) and re.search(r"^read +20 ", text, re.M)
    assert "decode" not in text and "real-time factor 0.10" in text


def test_dropped_seconds_add_up():
    _, rows, _ = watch([caption(0.0), caption(2.0, dropped=1.0), caption(5.0, dropped=2.0)])
    assert any("dropped 3.0 s" in row for row in rows)


@pytest.mark.parametrize(("width", "height"), [(28, 14), (40, 24), (59, 12), (80, 24), (80, 6), (110, 30), (200, 50)])
def test_the_view_fits_any_terminal_and_breaks_no_word(width, height):
    said = "number {} of many words about the match"
    items = [caption(float(i), said.format(i), usage=USAGE) for i in range(50)]
    gone, rows, _ = watch(items, width=width, height=height)
    panel = [row for row in rows if row and not re.match(r"(\d\d:){2}\d\d |         ", row)]
    assert len(panel) <= height - 4
    words = set(" ".join(gone + rows).split())
    assert set(said.split()) - {"{}"} <= words and "49" in words, "no word is broken at the edge"
    assert "cpu" in " ".join(panel) or "…" in panel[-1]


def test_wide_terminals_have_the_numbers_side_by_side():
    rows = watch([caption(0.0, "word", usage=USAGE)], width=200, height=50)[1]
    assert any("system" in row and "ms per s of video" in row for row in rows)


def test_what_is_typed_can_be_seen_and_is_handed_over(monkeypatch):
    """The line is edited by keys that come from a terminal of its own."""
    controller, device = os.openpty()
    asked = []
    with os.fdopen(device) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        before = termios.tcgetattr(device)
        screen = console()
        with Terminal(STATUS, screen, ask=asked.append) as view:
            view.write(caption(0.0, "word"))
            os.write(controller, "Wer schießt? ".encode()[:7])  # in the middle of a character
            os.write(controller, "Wer schießt? ".encode()[7:])
            wait_for(lambda: any("ask> Wer schießt?" in row for row in screen_of(screen.file.getvalue())[1]))
            assert not asked
            os.write(controller, b"x\x7f\n")
            wait_for(lambda: asked)
            wait_for(lambda: any(row.startswith("ask> ▏") for row in screen_of(screen.file.getvalue())[1]))
        assert asked == ["Wer schießt?"]
        assert termios.tcgetattr(device) == before, "the terminal echoes again"
    os.close(controller)


def test_without_questions_there_is_no_line_to_type_into():
    assert not any("ask>" in row for row in watch([caption(0.0, "word")])[1])


@pytest.mark.parametrize(
    ("keys", "lines", "rest"),
    [
        ("one\ntwo", ["one"], "two"),
        ("onf\x7fe\r", ["one"], ""),
        ("wrong\x15right\n", ["right"], ""),
        ("a\x1b[Db\x1b[3~c\x1bOAd\n", ["abcd"], ""),
        ("\n  \n\t\x01x\n", ["x"], ""),
    ],
)
def test_keys_make_lines(keys, lines, rest):
    whole, single = LineEditor(), LineEditor()
    assert whole.keys(keys) == lines and whole.text == rest
    assert [line for key in keys for line in single.keys(key)] == lines and single.text == rest


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_no_color(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    screen = Console(file=io.StringIO(), force_terminal=True, width=80, height=30)
    with Terminal(STATUS, screen) as view:
        view.write(caption(0.0, "word", usage=USAGE, lag=9.0))
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", screen.file.getvalue())


def test_the_words_cannot_control_the_terminal():
    output = watch([caption(0.0, "a\x1b[2Jb\x07c\rd")])[2]
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


def test_without_a_terminal_an_answer_is_three_lines():
    file = io.StringIO()
    with Terminal(STATUS, Console(file=file)) as view:
        view.answer(answer(2.0, "Which?", "A", choices=["red", "blue"]))
    assert file.getvalue().splitlines() == ["[00:00:02] Which?", "      A", "      20 ms to the first token; read 0:00-0:02"]


def test_memory_stays_bounded():
    with Terminal(STATUS, console()) as view:
        for i in range(1000):
            view.write(caption(float(i), "word"))
        assert len(view._above) < 1000 and len(view._costs.recent) <= 60


def test_the_summary_counts_what_happened(monkeypatch):
    now = [10.0]
    monkeypatch.setattr(tally.time, "perf_counter", lambda: now[0])
    counted = Tally(["a.vtt", "b.jsonl"])
    for i in range(11):
        counted.write(caption(float(i), "word" if i % 2 else "", dropped=2.0 if i == 3 else 0.0))
        now[0] += 0.5
    counted.answer(answer(3.0))
    assert counted.lines() == [
        "11 chunks of video, 0:11 in all: 5 captions, 6 silent, 1 answer. "
        "2.0 s of video were dropped, because the model was slower than the stream.",
        "After the first caption, 10 s of video took 5.0 s: 2.0 times as fast as it plays.",
        "Written: a.vtt, b.jsonl.",
    ]
    assert (counted.seconds, counted.wall) == (10.0, 5.0)
    assert Tally().lines() == ["0 chunks of video, 0:00 in all: 0 captions, 0 silent. Nothing was dropped."]


def test_several_sources_have_a_row_each_and_their_names_before_their_captions():
    statuses = {name: dataclasses.replace(STATUS, end=end) for name, end in (("hall", 60.0), ("camera-0", None), ("gate", 8.0))}
    screen = console(80, 24)
    with Terminal(STATUS, screen, board=Board(statuses)) as view:
        view.write(caption(0.0, "a goal"), name="hall")
        view.write(caption(0.0), name="gate")
        view.write(caption(1.0), name="gate")
        view.write(caption(0.0, "nobody there " * 8, lag=2.5, dropped=3.0), name="camera-0")
        view.end("gate", "failed")
        view._draw()
        rows = screen_of(screen.file.getvalue(), 80, 24)[1]
    assert rows[0] == "00:00:00 hall     a goal"
    assert rows[1].startswith("00:00:00 camera-0 nobody there") and rows[2].startswith(" " * 18 + "there")
    assert [re.sub(" +", " ", row) for row in rows if re.match("hall|camera|gate", row)] == [
        "hall 0:01 of 1:00 2 %",
        "camera-0 0:01 lag 2.5 s dropped 3.0 s",
        "gate 0:02 of 0:08 25 % failed",
    ]
    assert all(len(row) <= 80 for row in rows)


def test_a_board_of_many_sources_leaves_room_for_captions():
    statuses = {f"camera-{i}": STATUS for i in range(40)}
    screen = console(80, 24)
    with Terminal(STATUS, screen, board=Board(statuses)) as view:
        for i in range(40):
            view.write(caption(0.0, f"word {i}"), name=f"camera-{i}")
        view._draw()
        rows = screen_of(screen.file.getvalue(), 80, 24)[1]
    assert sum("word" in row for row in rows) >= 4
    assert any(re.fullmatch(r"and \d+ more", row) for row in rows)
