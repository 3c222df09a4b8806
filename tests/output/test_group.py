"""Several sinks at once: all are served and closed, whatever one of them does."""

import json

import numpy as np
import pytest

from svlm_jax.errors import OutputError
from svlm_jax.output import Callback, SinkGroup, open_sinks
from svlm_jax.output.base import Closing
from tests import clips
from tests.output.sink_helpers import answer, caption, decode, parse_subrip, parse_webvtt


class Recorder(Closing):
    def __init__(self, failure=None):
        self.failure, self.written, self.closed = failure, [], 0

    def write(self, item, frames=None):
        self.written.append((item, frames))
        if self.failure:
            raise self.failure

    def answer(self, record):
        self.written.append((record, None))
        if self.failure:
            raise self.failure

    def close(self):
        self.closed += 1
        if self.failure:
            raise self.failure


def test_callback():
    heard, answers = [], []
    with Callback(heard.append, answers.append) as sink:
        sink.write(caption(0.0, "word"), np.zeros((2, 3, 28, 28), np.uint8))
        sink.answer(answer(1.0))
    assert [item.text for item in heard] == ["word"] and [item.at for item in answers] == [1.0]
    Callback(heard.append).answer(answer(1.0))  # who wants captions only gets no other thing
    assert len(heard) == 1
    with pytest.raises(ZeroDivisionError):
        Callback(lambda item: 1 / 0).write(caption(0.0))


@pytest.mark.parametrize("failure", [OutputError("full"), KeyboardInterrupt()])
def test_one_that_fails_does_not_keep_the_others_from_their_caption_and_their_end(failure):
    sinks = [Recorder(), Recorder(failure), Recorder(OutputError("second")), Recorder()]
    frames = np.zeros((2, 3, 28, 28), np.uint8)
    with pytest.raises(type(failure)) as raised, SinkGroup(sinks) as group:
        group.write(caption(0.0, "word"), frames)
    with pytest.raises(type(failure)):
        SinkGroup(sinks).answer(answer(1.0))
    assert raised.value is failure
    assert all(len(sink.written) == 2 and sink.written[0][1] is frames and sink.closed == 1 for sink in sinks)


def test_an_empty_group_does_nothing():
    with SinkGroup([]) as group:
        group.write(caption(0.0))


def test_open_sinks_writes_everything_that_is_asked_for(tmp_path):
    original = clips.render(tmp_path / "a.mp4", frames=50, rate=25)
    heard, replies, terminal, tally = [], [], Recorder(), Recorder()
    places = {kind: tmp_path / f"b.{kind}" for kind in ("vtt", "srt", "jsonl")}
    for part in (0, 1):
        video = {"video": tmp_path / "b.mp4", "original": original}
        with open_sinks(
            terminal=terminal, tally=tally, **places, **video, callback=heard.append, answered=replies.append, append=part == 1
        ) as sink:
            sink.write(caption(float(part), f"word {part}"))
            sink.answer(answer(part + 1.0, text=f"reply {part}"))
    assert [item.text for item in heard] == ["word 0", "word 1"] and terminal.closed == tally.closed == 2
    assert [record.text for record in replies] == ["reply 0", "reply 1"] and len(terminal.written) == len(tally.written) == 4
    assert [cue[2] for cue in parse_webvtt(places["vtt"].read_text())] == ["word 0", "word 1"]
    assert "NOTE answer at 00:00:01.000\nQuestion: Who?\nAnswer: reply 0" in places["vtt"].read_text()
    cues = [cue[2] for cue in parse_subrip(places["srt"].read_text())]
    assert cues == ["word 0", "Who?\nreply 0", "word 1", "Who?\nreply 1"]
    lines = [json.loads(line) for line in places["jsonl"].read_text().splitlines()]
    assert [line["type"] for line in lines] == ["segment", "answer", "segment", "answer"]
    assert [line.get("start", line.get("at")) for line in lines] == [0.0, 1.0, 1.0, 2.0]
    assert clips.number(decode(tmp_path / "b.mp4")[1][0].transpose(2, 0, 1)) == 25


def test_when_one_cannot_be_opened_nothing_stays_open(tmp_path, recwarn):
    with pytest.raises(OutputError, match="does not exist"):
        open_sinks(vtt=tmp_path / "a.vtt", srt=tmp_path / "nowhere" / "a.srt")
    (tmp_path / "a.jsonl").write_text("no json\n")
    with pytest.raises(OutputError, match="cannot be continued"):
        open_sinks(vtt=tmp_path / "a.vtt", jsonl=tmp_path / "a.jsonl", append=True)
    with pytest.raises(OutputError, match="it is another output too"):
        open_sinks(vtt=tmp_path / "a.vtt", srt=tmp_path / "." / "a.vtt")
    with pytest.raises(OutputError, match="which is being read"):
        open_sinks(vtt=tmp_path / "a.jsonl", original=tmp_path / "a.jsonl")
    assert (tmp_path / "a.jsonl").read_text() == "no json\n"
