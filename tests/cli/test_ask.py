"""`svlm ask`, and `svlm watch --ask`: questions in, answers out, mistakes as one sentence."""

import json

import av
import numpy as np
import pytest

from svlm_jax.cache.policies import memory_policy
from svlm_jax.cli import main as cli
from svlm_jax.cli.side_questions import SideQuestions
from svlm_jax.errors import StreamError
from svlm_jax.streaming.vlm import StreamingVLM
from svlm_jax.video.chunk import Chunk
from tests import checkpoints, clips


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Six seconds of 56 x 84 pixels, which stay 2 x 3 tokens."""
    return clips.render(tmp_path_factory.mktemp("ask") / "clip.mp4", frames=48, rate=8, size=(56, 84))


def ask(video, *arguments):
    memory = ["--memory", "vsb+par,clip_frames=4,budget=30"]
    model = ["--model", str(checkpoints.tiny()), "--max-pixels", "4704", "--fps", "1"]
    return cli.main(["ask", str(video), *memory, *arguments, *model, "--max-new-tokens", "3"])


@pytest.mark.slow
def test_answers_are_told_and_written(video, tmp_path, capsys):
    assert ask(video, "0:02 What is it?", "And at the end?", "--jsonl", str(tmp_path / "answers.jsonl")) == 0
    told = capsys.readouterr().out
    assert "[00:00:02] What is it?" in told and "[00:00:06] And at the end?" in told and "read 0:00-0:02" in told
    first, last = (json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines())
    assert (first["at"], last["at"]) == (2.0, 6.0) and first["tokens"] <= 3 and first["type"] == "answer"
    assert max(second for second, _ in first["read"]) < 2.0 <= max(second for second, _ in last["read"])


def test_answers_before_a_source_breaks_are_kept(tmp_path, capsys):
    """A download that ended early: what was asked before its end is answered and written, then the end is said."""
    video = clips.render(tmp_path / "clip.mp4", frames=240, rate=8, size=(56, 84), options={"movflags": "faststart"})
    clips.truncate(video, 0.5)
    choice = ["--choice", "red", "--choice", "blue"]
    assert ask(video, "0:03 Early?", "0:29 Late?", *choice, "--jsonl", str(tmp_path / "answers.jsonl")) == 2
    (line,) = (tmp_path / "answers.jsonl").read_text().splitlines()
    assert json.loads(line)["question"] == "Early?" and json.loads(line)["at"] == 3.0
    printed = capsys.readouterr()
    assert "[00:00:03] Early?" in printed.out and "Late?" not in printed.out
    assert "truncated" in printed.err and printed.err.count("\n") == 1


def test_a_choice_is_told_in_words(video, capsys):
    assert ask(video, "Which team?", "--choice", "red", "--choice", "blue") == 0
    told = capsys.readouterr().out
    assert ("A. red" in told) != ("B. blue" in told)


@pytest.mark.slow
def test_questions_beside_captions_change_no_caption_and_stand_in_every_output(video, tmp_path, monkeypatch, capsys):
    """At a time, at the end, and typed while captions run."""
    short = ["--window", "vision=2,text=2,sink=4,tail=4", "--max-new-tokens", "2", "--no-live", "--max-pixels", "4704"]
    command = ["watch", str(video), "--model", str(checkpoints.tiny()), *short]
    assert cli.main(command) == 0
    captions = capsys.readouterr().out.splitlines()
    out = {kind: tmp_path / f"out.{kind}" for kind in ("vtt", "srt", "jsonl", "mp4")}
    files = [word for kind, path in out.items() for word in (f"--{'video' if kind == 'mp4' else kind}", str(path))]
    monkeypatch.setattr("sys.stdin", ["Typed?\n", "\n", "0:00 Too late?\n", "9:00 Never?\n"])
    asked = [*files, "--memory", "vsb+par,budget=60", "--ask", "0:02 What is it?", "--ask", "And then?", "--ask", "-"]
    assert cli.main([*command, *asked]) == 0
    told = capsys.readouterr().out.splitlines()
    questions = [line for line in told if line.startswith("[") and line.endswith("?")]
    assert [line for line in told if line.startswith("[") and line not in questions] == captions and len(captions) == 6
    assert {"[00:00:02] What is it?", "[00:00:06] And then?"} < set(questions) and len(questions) == 3
    refused = " ".join(line for line in told if line.startswith("not asked: "))
    assert "0:00 has passed" in refused and "the stream ends at 0:06, before 9:00" in refused
    objects = [json.loads(line) for line in out["jsonl"].read_text().splitlines()]
    answers = [item for item in objects if item["type"] == "answer"]
    assert sorted(item["question"] for item in answers) == ["And then?", "Typed?", "What is it?"]
    assert len(objects) - len(answers) == 6
    assert out["vtt"].read_text().count("NOTE answer at") == 3
    assert all(out["srt"].read_text().count(f"\n{question}\n") == 1 for question in ("And then?", "Typed?", "What is it?"))
    with av.open(str(out["mp4"])) as copy:
        assert sum(1 for _ in copy.decode(video=0)) > 48, "the last picture is held for the answers at the end"


@pytest.mark.slow
def test_a_rehearsal_leaves_the_stream_before_its_first_second():
    """What compiles for a live stream does so on a twin."""
    vlm = StreamingVLM.from_pretrained(checkpoints.tiny(), dtype="float32")
    beside = SideQuestions(vlm.qa_session(memory=memory_policy(budget=60, clip_frames=8), fps=2.0), ["0:01 What?"])
    frames = np.zeros((2, 3, 56, 84), np.uint8)
    beside.rehearse(Chunk(frames, 7.0, 8.0))
    assert beside.recall.position == 0 and beside.schedule.recall is beside.recall
    with pytest.raises(StreamError, match="before any video"):
        beside.recall.ask("What?")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["0:42 Who scored?"], ["the stream ended at 0:06", "reach 0:42"]),
        (
            ["Who?", "--memory", "vsb+par,clip_frames=4,budget=11"],
            ["budget=11", "the 12 tokens of a clip of 4 frames"],
        ),
        (["Who?", "--memory", "vsb+par,clip_frames=3"], ["a clip of 3 frames", "a multiple of 2 frames"]),
        (["Who?", "--choice", "red"], ["1 choices", "2 to 26"]),
        (["Who?", "--memory", "full,budget=12,clip_frames=4"], ["the memory of 12 tokens is full"]),
        (["0:00 Who?"], ["'Who?' came before any video", "at least one frame"]),
    ],
)
def test_mistakes_are_one_sentence(video, arguments, words, capsys):
    assert ask(video, *arguments) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith("svlm: ") and complaint.count("\n") == 1
    assert all(word in complaint for word in words), complaint


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("fifo,retrieve=0.2", ["retrieve=0.2 with policy=fifo", "expected vsb+par"]),
        ("window,budget=60", ["budget=60 with policy=window", "expected full, fifo"]),
        ("last-frames,clip_frames=4", ["clip_frames=4 with policy=last-frames"]),
        ("vsb+par,window=8", ["window=8.0 with policy=vsb+par", "expected window"]),
        ("vsb+par,frames=8", ["frames=8 with policy=vsb+par", "expected last-frames"]),
        ("vsb+par,retrieve=1.5", ["retrieve=1.5", "at most 1"]),
        ("vsb+par,budget=many", ["budget", "'many'", "a whole number"]),
        ("vsb+par,size=3", ["'size=3'", "budget=...", "each once"]),
        ("everything", ["'everything'", "vsb+par"]),
    ],
)
@pytest.mark.parametrize("command", [["ask", "x.mp4", "Who?"], ["watch", "x.mp4"], ["eval", "rvs-ego", "--data", "d"]])
def test_memories_that_do_not_work_are_said_by_every_command_before_anything_is_loaded(command, value, words, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main([*command, "--model", "nowhere", "--memory", value])
    assert caught.value.code == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith("svlm: ") and complaint.count("\n") == 1
    assert all(word in complaint for word in words), complaint


def test_answers_must_not_replace_the_video(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["ask", "nowhere.mp4", "Who?", "--model", "nowhere", "--jsonl", "nowhere.mp4"]) == 2
    complaint = capsys.readouterr().err
    assert "nowhere.mp4 cannot be written" in complaint and "which is being read" in complaint
