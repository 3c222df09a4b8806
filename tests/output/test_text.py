"""Subtitle and JSON Lines files: valid whatever is said, and at whatever moment the run stops."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import textwrap

import pytest

from svlm_jax.errors import OutputError
from svlm_jax.output import JsonLines, SubRip, WebVtt
from svlm_jax.output.text import clean_lines, clock, seconds_of
from svlm_jax.streaming.caption import Timing
from tests.output.sink_helpers import answer, caption, ffmpeg_cues, parse_subrip, parse_webvtt

KINDS = {"vtt": WebVtt, "srt": SubRip, "jsonl": JsonLines}
PARSERS = {
    "vtt": parse_webvtt,
    "srt": parse_subrip,
    "jsonl": lambda text: [(s["start"], s["end"], s["text"]) for s in map(json.loads, text.split("\n")[:-1])],
}
kinds = pytest.mark.parametrize("kind", KINDS)

SCRIPT = [
    caption(0.0, "Kick-off!"),
    caption(1.0),
    caption(2.0, 'A & B: "x < y --> z"', end=5.0, lag=1.25, dropped=2.0),  # chunks merged
    caption(5.0, " two\n\nlines \r\n"),
    caption(359999.5, "late", timing=Timing(1.0, 2.0), usage={"vision": (112, 1792)}),
]

WEBVTT = """\
WEBVTT

00:00:00.000 --> 00:00:01.000
Kick-off!

00:00:02.000 --> 00:00:05.000
A &amp; B: "x &lt; y --&gt; z"

00:00:05.000 --> 00:00:06.000
two
lines

99:59:59.500 --> 100:00:00.500
late

"""

SUBRIP = """\
1
00:00:00,000 --> 00:00:01,000
Kick-off!

2
00:00:02,000 --> 00:00:05,000
A & B: "x <\u2060 y --\u2060> z"

3
00:00:05,000 --> 00:00:06,000
two
lines

4
99:59:59,500 --> 100:00:00,500
late

"""


def run(kind, path, captions, **options):
    with KINDS[kind](path, **options) as sink:
        for item in captions:
            sink.write(item)
    return path.read_text("utf-8")


@pytest.mark.parametrize(("kind", "golden"), [("vtt", WEBVTT), ("srt", SUBRIP)])
def test_subtitles_golden(kind, golden, tmp_path):
    assert run(kind, tmp_path / "x", SCRIPT) == golden


def test_json_lines_golden(tmp_path):
    lines = run("jsonl", tmp_path / "x", SCRIPT).splitlines()
    objects = [json.loads(line) for line in lines]
    assert len(objects) == len(SCRIPT)
    assert objects[1]["silent"] and objects[1]["text"] == "" and not objects[0]["silent"]
    assert objects[2] == {
        "type": "segment",
        "start": 2.0,
        "end": 5.0,
        "text": 'A & B: "x < y --> z"',
        "tokens": 3,
        "silent": False,
        "lag": 1.25,
        "dropped": 2.0,
        "timing": {"read": 12.0, "step": 270.0, "vision": 30.0, "prefill": 40.0, "decode": 200.0},
        "cache": {},
    }
    assert objects[4]["timing"] == {"read": 1.0, "step": 2.0, "vision": None, "prefill": None, "decode": None}
    assert objects[4]["cache"] == {"vision": [112, 1792]}


def answered(kind, path, items, **options):
    """The file with these captions and answers."""
    with KINDS[kind](path, **options) as sink:
        for item in items:
            (sink.write if hasattr(item, "start") else sink.answer)(item)
    return path.read_text("utf-8")


ASKED = [caption(0.0, "one"), answer(1.0, "Who --> <b>?\n\nReally?", "A & B"), caption(1.0, "two")]


def test_answers_golden(tmp_path):
    vtt, srt, jsonl = (answered(kind, tmp_path / kind, ASKED) for kind in ("vtt", "srt", "jsonl"))
    assert "\n\nNOTE answer at 00:00:01.000\nQuestion: Who --&gt; &lt;b&gt;? Really?\nAnswer: A &amp; B\n" in vtt
    assert [cue[2] for cue in parse_webvtt(vtt)] == ["one", "two"], "a comment is not shown"
    assert [cue[2] for cue in parse_subrip(srt)][::2] == ["one", "two"]
    assert parse_subrip(srt)[1][:2] == (0.999, 6.0) and "A & B" in parse_subrip(srt)[1][2]
    first, said, second = map(json.loads, jsonl.splitlines())
    assert first["type"] == second["type"] == "segment"
    assert said == {
        "type": "answer",
        "at": 1.0,
        "question": "Who --> <b>?\n\nReally?",
        "text": "A & B",
        "tokens": 2,
        "choice": None,
        "chosen": None,
        "scores": None,
        "read": [[0.0, 1.0], [1.0, 0.5]],
        "timing": {"catch_up": 1.0, "first_token": 20.0, "total": 30.0},
    }


@kinds
def test_a_resumed_stream_keeps_the_answers_of_what_it_has_seen(kind, tmp_path):
    """Saved at 1.0, resumed there: the answer that was asked then stays, those of later seconds are told anew."""
    rest = [caption(1.0, "two"), answer(1.5), answer(2.0), caption(2.0, "three")]
    whole = answered(kind, tmp_path / "whole", [*ASKED[:2], *rest])
    for lost in (rest[:1], rest[:2], rest[:3]):
        answered(kind, tmp_path / "parts", [*ASKED[:2], *lost])
        assert answered(kind, tmp_path / "parts", rest, append=True) == whole
    answered(kind, tmp_path / "parts", ASKED[:1])
    assert answered(kind, tmp_path / "parts", [*ASKED[1:2], *rest], append=True) == whole, "an answer may be the first to come"


def test_json_has_no_nan_and_no_hidden_line_ends(tmp_path):
    text = run("jsonl", tmp_path / "x", [caption(0.0, "a\u2028b\x85c", lag=float("nan"), timing=Timing(float("inf"), 1.0))])
    assert len(text.splitlines()) == 1
    segment = json.loads(text, parse_constant=pytest.fail)
    assert segment["text"] == "a\u2028b\x85c" and segment["lag"] is None and segment["timing"]["read"] is None


@pytest.mark.parametrize("kind", ["vtt", "srt"])
def test_ffmpeg_reads_the_subtitles(kind, tmp_path):
    path = tmp_path / f"x.{kind}"
    run(
        kind,
        path,
        [
            caption(0.0, "first"),
            caption(1.0, "12"),
            caption(2.0, "1\n00:00:07,000 --> 00:00:08,000\nno cue"),
            caption(9.0, "z"),
        ],
    )
    cues = ffmpeg_cues(path)
    assert [start for start, _ in cues] == [0.0, 1.0, 2.0, 9.0]
    assert [cues[i][1] for i in (0, 1, 3)] == ["first", "12", "z"]


PIECES = [
    "goal",
    "&",
    "&amp;",
    "<",
    ">",
    "<b>",
    "-->",
    "--",
    "\n",
    "\n\n",
    "\r\n",
    "\r",
    "\t",
    "\0",
    "\x1b[2J",
    "\x85",
    "\u2028",
]
PIECES += ["00:00:01,000 --> 00:00:02,000", "00:00:01.000 --> 00:00:02.000", "WEBVTT", "NOTE", "{\\an8}", "1", " "]
PIECES += ["进球", "\ud800", "\ufeff"]


@kinds
@pytest.mark.parametrize("seed", range(20))
def test_any_words_leave_a_valid_file(kind, seed, tmp_path):
    draw = random.Random(seed)
    captions, time = [], draw.choice([0.0, 3.7, 3599.9996, 360000.0])
    for _ in range(30):
        length = draw.choice([1.0, 0.5, 3.0, 0.0001])
        captions.append(caption(time, " ".join(draw.choices(PIECES, k=draw.randrange(6))), end=time + length))
        time += length
    cues = PARSERS[kind](run(kind, tmp_path / "x", captions))
    spoken = captions if kind == "jsonl" else [item for item in captions if clean_lines(item.text)]
    assert [cue[0] for cue in cues] == pytest.approx([item.start for item in spoken], abs=1e-3)
    if kind != "jsonl":
        for cue, item in zip(cues, spoken, strict=True):
            plain = cue[2].replace("\u2060", "").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
            expected = "\n".join(clean_lines(item.text))
            assert plain == (
                expected if kind == "vtt" else expected.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
            )


@kinds
@pytest.mark.parametrize("again", [0, 1, 3])
def test_a_resumed_stream_leaves_the_file_of_an_uninterrupted_one(kind, again, tmp_path):
    """`again`: chunks that the first run still wrote after its state was saved."""
    whole = [caption(float(i), "" if i % 3 == 1 else f"word {i}") for i in range(12)]
    expected = run(kind, tmp_path / "whole", whole)
    path = tmp_path / "parts"
    run(kind, path, whole[: 5 + again])
    assert run(kind, path, whole[5:], append=True) == expected


@kinds
def test_append_drops_a_torn_record_and_creates_what_is_missing(kind, tmp_path):
    whole = [caption(float(i), f"word {i}") for i in range(4)]
    expected = run(kind, tmp_path / "whole", whole)
    path = tmp_path / "torn"
    first = run(kind, path, whole[:3], append=True)
    for cut in range(1, len(first) - len(run(kind, tmp_path / "two", whole[:2]))):
        path.write_text(first[:-cut])
        assert run(kind, path, whole[2:], append=True) == expected, cut
    assert run(kind, path, [], append=True) == expected


@pytest.mark.parametrize("old", ["", "W", "WEBVTT\n"])
def test_append_to_a_file_without_cues(old, tmp_path):
    path = tmp_path / "x.vtt"
    path.write_text(old)
    assert run("vtt", path, SCRIPT, append=True) == WEBVTT


@pytest.mark.parametrize(
    ("kind", "old"),
    [("vtt", "hello\n\n"), ("vtt", "WEBVTT\n\nhello\n\n"), ("srt", "x\n\n"), ("jsonl", "x\n"), ("jsonl", "[]\n")],
)
def test_append_refuses_files_of_another_kind_and_leaves_them_alone(kind, old, tmp_path):
    path = tmp_path / "x"
    path.write_text(old)
    with pytest.raises(OutputError, match="cannot be continued"):
        KINDS[kind](path, append=True)
    assert path.read_text() == old


@kinds
def test_every_caption_is_on_disk_when_write_returns(kind, tmp_path):
    path = tmp_path / "x"
    sink = KINDS[kind](path)
    for i in range(5):
        sink.write(caption(float(i), f"word {i}"))
        assert len(PARSERS[kind](path.read_text())) == i + 1
    sink.close()
    sink.close()
    with pytest.raises(OutputError, match="closed"):
        sink.write(caption(9.0, "late"))


@kinds
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda s: s.name)
def test_a_killed_run_leaves_a_valid_file(kind, how, tmp_path):
    path = tmp_path / "x"
    code = f"""
        from svlm_jax.output import {KINDS[kind].__name__} as Sink
        from svlm_jax.streaming.caption import Caption, Timing
        with Sink({str(path)!r}) as sink:
            for i in range(10**6):
                sink.write(Caption(i, i + 1, "word " * 50, (1,), Timing(1.0, 1.0)))
                if i == 50:
                    print("go", flush=True)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout.readline() == b"go\n"
    process.send_signal(how)
    process.wait(10)
    process.stdout.close()
    assert len(PARSERS[kind](path.read_text())) > 50


@kinds
def test_full_disk_is_one_sentence_and_the_file_stays_valid(kind, tmp_path):
    path = tmp_path / "x"
    sink = KINDS[kind](path)
    sink.write(caption(0.0, "before"))

    class FullDisk:
        """Takes seven bytes more, as a disk does that fills up in the middle of a record."""

        def __init__(self, file):
            self.file, self.room = file, 7

        def write(self, data):
            if not self.room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            size = min(self.room, len(data))
            self.room -= size
            return self.file.write(data[:size])

        def __getattr__(self, name):
            return getattr(self.file, name)

    whole, sink._file = sink._file, FullDisk(sink._file)
    with pytest.raises(OutputError, match=r"x cannot be written: No space left on device\.$"):
        sink.write(caption(1.0, "does not fit"))
    assert len(PARSERS[kind](path.read_text())) == 1
    sink._file = whole
    sink.write(caption(2.0, "after"))
    sink.close()
    assert [cue[2] for cue in PARSERS[kind](path.read_text())] == ["before", "after"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_really_full_device(tmp_path):
    with pytest.raises(OutputError, match="No space left on device"):
        WebVtt("/dev/full")


@kinds
def test_unusable_paths(kind, tmp_path):
    with pytest.raises(OutputError, match=r"the folder .*nowhere does not exist"):
        KINDS[kind](tmp_path / "nowhere" / "x")
    with pytest.raises(OutputError, match="is a folder"):
        KINDS[kind](tmp_path)
    locked = tmp_path / "locked"
    locked.touch()
    locked.chmod(0o400)
    if not os.access(locked, os.W_OK):  # root may write anywhere
        with pytest.raises(OutputError, match="Permission denied"):
            KINDS[kind](locked)


@pytest.mark.parametrize("seconds", [0.0, 0.0004, 0.9996, 59.9999, 3599.9999, 86400.001, 400_000.25])
def test_clock_rounds_and_returns(seconds):
    assert seconds_of(clock(seconds)) == pytest.approx(seconds, abs=5.1e-4)
    assert seconds_of(clock(seconds, mark=",")) == seconds_of(clock(seconds))


@kinds
def test_pipes_are_written_too(kind, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with KINDS[kind](pipe, append=True) as sink:
        sink.write(caption(0.0, "hello"))
        assert PARSERS[kind](os.read(reader, 10_000).decode())[0][2] == "hello"
    os.close(reader)
