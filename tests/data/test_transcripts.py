"""Transcripts of three kinds, and folders of them."""

import json
import logging
import time

import pytest

from svlm_jax.data.annotations import AnnotationFile
from svlm_jax.data.sentences import Sentence, spread
from svlm_jax.data.transcripts import annotate_folder, read_transcript
from svlm_jax.data.windows import Annealing, Overlapped
from svlm_jax.errors import DataError
from tests import clips

SRT = """\
1
00:00:01,000 --> 00:00:03,000
<i>He shoots,</i>
he scores!

2
01:02:03,250 --> 01:02:04,250
{\\an8}Tom &amp; Ann
"""
VTT = """\
WEBVTT - a title
Kind: captions

NOTE
00:10 is not a cue

STYLE
::cue { color: red }

00:01.000 --> 00:03.000 align:start position:0%
He shoots,
he scores!

intro
01:02:03.250 --> 01:02:04.250
<v Roger>Tom &amp; Ann</v>
"""


@pytest.mark.parametrize(("suffix", "text"), [("srt", SRT), ("vtt", VTT), ("srt", "\ufeff" + SRT.replace("\n", "\r\n"))])
def test_subtitles(tmp_path, suffix, text):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(text.encode())
    first, second = read_transcript(path)
    assert (first.start, first.end, first.text) == (1.0, 3.0, "He shoots, he scores!")
    assert [(word.start, word.end) for word in first.words] == [(1.0, 1.5), (1.5, 2.0), (2.0, 2.5), (2.5, 3.0)]
    assert (second.start, second.end, second.text) == (3723.25, 3724.25, "Tom & Ann")


def test_times_inside_a_cue_are_used(tmp_path):
    path = tmp_path / "a.vtt"
    path.write_text("WEBVTT\n\n00:01.000 --> 00:05.000\nred<00:02.000><c> goal</c><00:04.000><c> at last</c>\n")
    (sentence,) = read_transcript(path)
    assert [tuple(word) for word in sentence.words] == [(1, 2, "red"), (2, 4, "goal"), (4, 4.5, "at"), (4.5, 5, "last")]


# As automatic captions come: the line before stands above the one that is said, and a cue of 10 ms carries it over.
ROLLING = """\
WEBVTT
Kind: captions

00:00:00.160 --> 00:00:02.470 align:start position:0%
 
red<00:00:01.000><c> has</c><00:00:02.000><c> it</c>

00:00:02.470 --> 00:00:02.480 align:start position:0%
red has it
 

00:00:02.480 --> 00:00:04.390 align:start position:0%
red has it
goal<00:00:03.000><c> goal</c>

00:00:04.390 --> 00:00:04.400 align:start position:0%
goal goal
 

00:00:04.400 --> 00:00:06.000 align:start position:0%
goal goal
goal<00:00:05.000><c> goal</c>

00:00:09.000 --> 00:00:10.000 align:start position:0%
goal goal
"""  # noqa: W293


def test_lines_that_roll_up_are_said_once(tmp_path):
    path = tmp_path / "a.vtt"
    path.write_text(ROLLING)
    words = [word for sentence in read_transcript(path) for word in sentence.words]
    assert [word.text for word in words] == ["red", "has", "it", *4 * ["goal"], "goal", "goal"]
    assert [word.end for word in words] == [1, 2, 2.47, 3, 4.39, 5, 6, 9.5, 10]


def test_lines_that_roll_up_three_at_a_time(tmp_path):
    lines = [f"line {i} of many" for i in range(5)]
    shown = [lines[max(0, i - 2) : i + 1] for i in range(5)]
    cues = [f"{i + 1}\n00:00:{i:02},000 --> 00:00:{i + 1:02},000\n" + "\n".join(text) for i, text in enumerate(shown)]
    path = tmp_path / "a.srt"
    path.write_text("\n \n".join(cues))  # separated by a blank, as some writers do
    assert [(sentence.start, sentence.text) for sentence in read_transcript(path)] == list(enumerate(lines))


def test_what_is_said_twice_is_kept_twice(tmp_path):
    said = ["Goal!", "Goal!", "Goal!\nGoal!", "Red lead.", "Goal!"]
    path = tmp_path / "a.srt"
    path.write_text("\n\n".join(f"{i}\n00:00:{i:02},000 --> 00:00:{i + 1:02},000\n{text}" for i, text in enumerate(said)))
    assert " ".join(sentence.text for sentence in read_transcript(path)) == " ".join(said).replace("\n", " ")


def test_whisperx_words_keep_their_times_and_numbers_share_the_gap(tmp_path):
    words = [
        {"word": "19"},
        {"word": "It's", "start": 1.2, "end": 1.4, "score": 0.9},
        {"word": "3"},
        {"word": "2"},
        {"word": "now.", "start": 2.4, "end": 2.8},
        {"word": "99"},
    ]
    segments = [
        {"start": 5.0, "end": 6.0, "text": " Two words "},
        {"start": 1.0, "end": 3.0, "text": "19 It's 3 2 now. 99", "words": words},
        {"start": 7.0, "end": 8.0, "text": " "},
    ]
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"segments": segments, "language": "en"}))
    first, second = read_transcript(path)
    assert [tuple(word) for word in first.words] == [
        (1.0, 1.2, "19"),
        (1.2, 1.4, "It's"),
        (1.4, 1.9, "3"),
        (1.9, 2.4, "2"),
        (2.4, 2.8, "now."),
        (2.8, 3.0, "99"),
    ]
    assert [tuple(word) for word in second.words] == [(5.0, 5.5, "Two"), (5.5, 6.0, "words")]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.json", b"{", "is no JSON"),
        ("a.json", b"[]", r"is \[\]: expected an object"),
        ("a.json", b'{"segments": [3]}', r"segments\[0\] is 3: expected an object"),
        ("a.json", b'{"segments": [{"words": [{"word": 7}]}]}', r"words\[0\], field 'word' is 7: expected text"),
        ("a.srt", b"hello", "it has no cues"),
        ("a.srt", b"1\n00:00:01,000 -->\nhello", "it has no cues"),
        ("a.vtt", b"\xff\xfe\x00", "not utf-16 text"),
        ("a.txt", b"", r"expected .json, .srt, .vtt"),
    ],
)
def test_transcripts_that_cannot_be_read_are_named(tmp_path, name, content, sentence):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=sentence) as error:
        read_transcript(path)
    assert str(path) in str(error.value)
    with pytest.raises(DataError, match="cannot be read"):
        read_transcript(tmp_path / "none.srt")


def subtitles(seconds, rate=3):
    cues = (
        f"{i}\n00:00:{i:02},000 --> 00:00:{i + 1:02},000\n" + " ".join(f"w{i}.{k}" for k in range(rate)) for i in range(seconds)
    )
    return "\n\n".join(cues)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    (folder / "sub").mkdir()
    clips.render(folder / "sub" / "game.mp4", frames=2 * 36, rate=2)
    (folder / "sub" / "game.srt").write_text(subtitles(36))
    clips.render(folder / "silent.mp4", frames=4, rate=2)
    clips.render(folder / "broken.mp4", frames=4, rate=2)
    (folder / "broken.vtt").write_text("nothing")
    (folder / "noise.mp4").write_bytes(b"noise")
    (folder / "noise.srt").write_text(subtitles(30))
    return folder


MESSY = """\
1
00:00:01,000 --> 00:00:02,000

first

still first
2
0:0:3.5 -> 00:00:04:500
3

second
3

00:00:05,000 --> 00:00:04,000 X1:40 X2:600
<font color="red">third</font> &amp;&#1234567890123456789;
4
oops --> 00:00:07,000
lost
5
00:08 --> 00:09

"""


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\r\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_subtitles_are_read_by_their_time_lines(tmp_path, caplog, end, encoding):
    path = tmp_path / "a.srt"
    path.write_bytes(MESSY.replace("\n", end).encode(encoding))
    found = [(sentence.start, sentence.end, sentence.text) for sentence in read_transcript(path)]
    assert found == [(1, 2, "first still first"), (3.5, 4.5, "3 second"), (5, 5, "third &\ufffd")]
    for said in ("cues without words: 1", "time lines that are not understood: 1", "ends before the start: 1"):
        assert said in caplog.text


def test_numbers_are_told_from_words_without_blank_lines(tmp_path):
    path = tmp_path / "a.srt"
    cues = [(7, "4"), (8, "8"), (9, "nine\n10"), (10, "11")]
    path.write_text("\n".join(f"{n}\n00:00:{n:02},000 --> 00:00:{n + 1:02},000\n{text}" for n, text in cues))
    assert [sentence.text for sentence in read_transcript(path)] == ["4", "8", "nine 10", "11"]
    path.write_text("00:01 --> 00:02\n7\n00:02 --> 00:03\n8\n00:03 --> 00:04\nwords\n")  # no numbers but those that are said
    assert [sentence.text for sentence in read_transcript(path)] == ["7", "8", "words"]


@pytest.mark.parametrize(
    "text",
    [
        "7\n\n00:00:01,000 --> 00:00:02,000\n\n\nred\n\n\n8\n\n00:00:03,000 --> 00:00:04,000\n\ngoal",
        "1\n\r00:00:01,000 --> 00:00:02,000\n\rred\n\r\n\r2\n\r00:00:03,000 --> 00:00:04,000\n\rgoal\n\r",
        "1 00:00:01,000 --> 00:00:02,000\nred\n2) 00:00:03,000 --> 00:00:04,000\ngoal\n",
    ],
    ids=["blank lines everywhere", "LF CR", "numbers beside the times"],
)
def test_numbers_of_cues_are_no_words(tmp_path, caplog, text):
    (tmp_path / "a.srt").write_bytes(text.encode())
    found = [(sentence.start, sentence.end, sentence.text) for sentence in read_transcript(tmp_path / "a.srt")]
    assert found == [(1.0, 2.0, "red"), (3.0, 4.0, "goal")] and not caplog.text


def test_behind_a_note_nothing_is_text(tmp_path, caplog):
    path = tmp_path / "a.vtt"
    path.write_text("WEBVTT\n\n00:01.000 --> 00:02.000\none\nNOTE this is said\n\nNOTE this is not\nnor this\n\nlost\n")
    (sentence,) = read_transcript(path)
    assert sentence.text == "one NOTE this is said"
    assert "paragraphs behind a note: 1" in caplog.text


def test_other_encodings_are_declared_or_said(tmp_path, caplog):
    path = tmp_path / "a.srt"
    path.write_bytes("00:01,000 --> 00:02,000\nTor für Köln".encode("cp1252"))
    assert read_transcript(path)[0].text == "Tor für Köln"
    assert "read as Latin-1" in caplog.text
    path.write_bytes("00:01,000 --> 00:02,000\nГол".encode("cp1251"))
    assert read_transcript(path, encoding="cp1251")[0].text == "Гол"
    with pytest.raises(DataError, match="is not ascii text"):
        read_transcript(path, encoding="ascii")


@pytest.mark.parametrize("none", [None, float("nan"), float("inf"), -1, 10**400, "soon", True])
def test_times_that_are_none_are_those_between_the_neighbours(tmp_path, caplog, none):
    words = [
        {"word": "one", "start": 1.0, "end": 2.0},
        {"word": "2", "start": none, "end": none},
        {"word": "three", "start": 3.0, "end": 4.0},
    ]
    segments = [
        {"start": none, "end": 9, "text": "zero"},
        {"start": 1, "end": 4, "text": "x", "words": words},
        {"text": "five"},
    ]
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"segments": segments}))
    zero, counted, five = read_transcript(path)
    assert (zero.start, zero.end, five.start, five.end) == (0, 1, 4, 4)
    assert [tuple(word) for word in counted.words] == [(1, 2, "one"), (2, 3, "2"), (3, 4, "three")]
    assert "segments without times: 2" in caplog.text


@pytest.mark.parametrize("unit", ["<a", "{\\", "&#1", "1:", "-->", "00:01 --> 00:02\nx\n", "x\n\n", "<00:01", " ", "9"])
def test_long_files_take_no_quadratic_time(tmp_path, unit):
    path = tmp_path / "a.srt"
    path.write_text("00:01 --> 00:02\n" + unit * (200_000 // len(unit)))
    begin = time.perf_counter()
    read_transcript(path)
    assert time.perf_counter() - begin < 5  # a quadratic pattern takes minutes


def test_many_words_without_times_take_no_quadratic_time(tmp_path):
    words = [{"word": "a"} if i % 2 else {"word": "a", "start": i, "end": i + 1} for i in range(40_000)]
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"segments": [{"start": 0, "end": 40_000, "text": "a", "words": words}]}))
    begin = time.perf_counter()
    assert len(read_transcript(path)[0].words) == 40_000
    assert time.perf_counter() - begin < 5


def test_a_folder_becomes_annotations(folder, tmp_path, caplog):
    path = tmp_path / "train_with_seeks.jsonl"
    with caplog.at_level(logging.WARNING):
        assert annotate_folder(folder, path) == 2
    samples = list(AnnotationFile(path))
    assert [(sample.video, sample.start, sample.end, sample.title) for sample in samples] == [
        ("sub/game.mp4", 0, 24, "game"),
        ("sub/game.mp4", 12, 36, "game"),
    ]
    assert samples[1].previous.startswith("w0.0 w0.1") and samples[1].words[0].text == "w12.0"
    assert "broken.mp4 is left out" in caplog.text and "noise.mp4 is left out" in caplog.text and len(caplog.records) == 2


def test_sentences_and_samples_can_be_filtered(folder, tmp_path):
    def shorter(title, sentences):
        return [sentence for sentence in sentences if sentence.start < 20]

    path = tmp_path / "fg.jsonl"
    assert annotate_folder(folder, path, Annealing(), curate=shorter) == 1
    assert [(sample.start, sample.end) for sample in AnnotationFile(path)] == [(0, 20)]
    assert annotate_folder(folder, path, Overlapped(), keep=lambda sample: sample.start > 0) == 1


def test_a_folder_without_transcripts_is_named(tmp_path):
    with pytest.raises(DataError, match="has 0 videos"):
        annotate_folder(tmp_path, tmp_path / "x.jsonl")


def test_spreading():
    assert spread("a b", 1.0, 2.0) == ((1.0, 1.5, "a"), (1.5, 2.0, "b")) and spread(" ", 1.0, 2.0) == ()
    assert Sentence(1.0, 2.0, spread("a b", 1.0, 2.0)).text == "a b"
