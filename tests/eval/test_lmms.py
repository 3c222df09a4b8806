"""Our model in lmms-eval: how it is found, what it is shown for which request, and what it refuses."""

import importlib.util
import json
import logging
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from svlm_jax.errors import ConfigError, EvalError
from svlm_jax.eval.lmms.requests import asked
from svlm_jax.models.resize_rule import PUBLISHED
from svlm_jax.streaming.vlm import StreamingVLM
from tests import checkpoints, clips
from tests.eval import lmms_contract, sets
from tests.eval.fakes import Reader
from tests.eval.lmms_contract import Request

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model():
    """The module of the class."""
    with pytest.MonkeyPatch.context() as patch:
        lmms_contract.install(patch)
        yield importlib.import_module("svlm_jax.eval.lmms.model")
        patch.delitem(sys.modules, "svlm_jax.eval.lmms.model")


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return str(sets.clip(tmp_path_factory.mktemp("lmms") / "a.mp4"))


@pytest.fixture
def reader(model, monkeypatch):
    reader = Reader(lambda question, seen: f"{seen}")
    reader.vlm = SimpleNamespace(resize_rule=PUBLISHED.at_most)
    monkeypatch.setattr(model.StreamingVLM, "from_pretrained", lambda *arguments, **settings: None)
    monkeypatch.setattr(model, "CommentaryAdapter", lambda vlm, revision: reader)
    return reader


def ask(svlm, *docs, **settings):
    """Answers to documents, which are messages or parts of a user's message."""
    messages = [doc if "role" in doc[0] else [{"role": "user", "content": doc}] for doc in docs]
    svlm.task_dict = {"task": {"test": messages}}
    arguments = [("context", list, {"max_new_tokens": 8, **settings}, i, "task", "test") for i in range(len(docs))]
    return svlm.generate_until([Request(one) for one in arguments])


def text(words):
    return {"type": "text", "text": words}


def shown(path, **part):
    return {"type": "video", "url": path, **part}


def test_it_is_found(model):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module, _, name = project["entry-points"]["lmms_eval.models"]["svlm"].partition(":")
    manifest = getattr(importlib.import_module(module), name)()
    assert manifest.model_id == "svlm" and manifest.simple_class_path is None
    where, _, name = manifest.chat_class_path.rpartition(".")
    found = getattr(importlib.import_module(where), name)
    assert found is model.Svlm and issubclass(found, model.lmms) and not found.is_simple


def test_it_costs_other_models_of_lmms_eval_nothing():
    """Entry points are loaded whichever model is asked for."""
    heavy = "{'jax', 'torch', 'av', 'lmms_eval'} & set(sys.modules)"
    program = f"import sys, svlm_jax.eval.lmms; sys.exit(', '.join({heavy}) or None)"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("row", "seen"),
    [("stream", [4, 5, 6, 7, 8, 8]), ("prefix", [4, 8]), ("last", [5, 6, 7, 8])],
)
def test_a_part_of_a_video_is_shown_as_a_row_shows_it(model, reader, video, row, seen):
    svlm = model.Svlm("m", row=row, prefix_frames=2, last_fps=2.0)
    assert ask(svlm, [text("Which?"), shown(video, start_time=2.0, end_time=4.4)]) == [str(seen)]
    assert reader.asked[0][0] == "Which?"


def test_questions_about_one_video_share_a_stream(model, reader, video):
    docs = [[shown(video), text(f"question {i}")] for i in range(3)]
    answers = ask(model.Svlm("m"), *docs, [shown(video, end_time=2.0), text("early")])
    assert answers == [str(list(range(16)))] * 3 + [str([0, 1, 2, 3])] and len(reader.views) == 1
    ask(model.Svlm("m", row="prefix"), *docs)
    assert len(reader.views) == 4


def test_pictures_are_a_second_each(model, reader, tmp_path):
    pictures = [Image.fromarray(clips.picture(number)) for number in (7, 8, 9)]
    pictures[1].save(tmp_path / "8.png")
    content = [{"type": "image", "url": one} for one in (pictures[0], str(tmp_path / "8.png"), pictures[2].resize((400, 300)))]
    for row in ("stream", "prefix"):
        assert ask(model.Svlm("m", row=row), [*content, text("Which?")]) == ["[7, 7, 8, 8, 9, 9]"]
    assert ask(model.Svlm("m", row="last"), [*content, text("Which?")]) == ["[8, 8, 9, 9]"]


def test_what_a_conversation_asks():
    messages = [
        {"role": "system", "content": [text("Be brief.")]},
        {"role": "user", "content": [shown({"path": "a.mp4", "video_start": 1, "video_end": 3.5}), text("Who?")]},
    ]
    one = asked(messages, {"until": "\n", "temperature": 0})
    assert (one.question, one.video, one.start, one.end) == ("Be brief.\nWho?", "a.mp4", 1.0, 3.5)
    assert one.until == ("\n",) and one.max_new_tokens == 128
    assert asked([{"role": "user", "content": [shown("b.mp4")]}, {"role": "user", "content": "Why?"}], {}).question == "Why?"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([text("Who?")], "shows 0 videos and 0 pictures"),
        ([shown("a.mp4"), shown("b.mp4")], "shows 2 videos and 0 pictures"),
        ([shown("a.mp4"), {"type": "image", "url": "x.png"}], "shows 1 videos and 1 pictures"),
        ([shown("a.mp4"), {"type": "audio", "url": "x.wav"}], "shows audio"),
        ([shown([1, 2])], "gives a video as list"),
    ],
)
def test_tasks_that_cannot_be_shown(content, sentence):
    with pytest.raises(EvalError, match=sentence):
        asked([{"role": "user", "content": content}], {})


def test_answers_end_where_the_task_says(model, reader, video):
    reader.answer = lambda question, seen: "B\nbecause. And so on"
    assert ask(model.Svlm("m"), [shown(video), text("?")], until=[".", "\n"]) == ["B"]


def test_a_video_that_is_missing_is_told(model, reader, video, caplog):
    caplog.set_level(logging.WARNING)
    answers = ask(model.Svlm("m"), [shown("gone.mp4"), text("?")], [shown(video, end_time=1.0), text("?")])
    assert answers == ["", "[0, 1]"]
    assert "request 0 has no answer: gone.mp4 does not exist" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"row": "chunked"}, "row='chunked': expected one of prefix, last, stream"),
        ({"batch_size": 8}, "batch_size=8: expected 1"),
        ({"frames": 8}, "model argument frames: expected one of fps, prefix_frames"),
        ({"recall": "all"}, "recall='all': expected one of full, window"),
        ({"prefix_frames": 7}, "prefix_frames=7: expected an even number"),
    ],
)
def test_arguments_that_do_not_fit(model, arguments, sentence):
    with pytest.raises(ConfigError, match=sentence):
        model.Svlm("m", **arguments)


def test_other_kinds_of_requests(model, reader):
    svlm = model.Svlm("m", batch_size=1, max_batch_size=None, device="cpu")
    with pytest.raises(EvalError, match="likelihoods"):
        svlm.loglikelihood([])
    with pytest.raises(EvalError, match="several rounds"):
        svlm.generate_until_multi_round([])


TASK = """\
task: made
dataset_path: json
dataset_kwargs: {{data_files: {{test: {docs}}}}}
test_split: test
output_type: generate_until
doc_to_visual: !function utils.visual
doc_to_text: !function utils.text
doc_to_target: answer
generation_kwargs: {{max_new_tokens: 4}}
process_results: !function utils.results
metric_list: [{{metric: said, aggregation: mean, higher_is_better: true}}]
"""
UTILS = """\
def visual(doc):
    return [doc["video"]]

def text(doc, lmms_eval_specific_kwargs=None):
    return doc["question"]

def results(doc, answers):
    return {"said": float(len(answers[0]) > 0)}
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("lmms_eval") is None, reason="needs lmms-eval, beside this package")
def test_the_library_runs_a_task_on_it(video, tmp_path):
    docs = sets.write(tmp_path / "docs.json", [{"video": video, "question": f"Who {i}?", "answer": "x"} for i in range(2)])
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "made.yaml").write_text(TASK.format(docs=docs))
    (tmp_path / "tasks" / "utils.py").write_text(UTILS)
    model = f"pretrained={checkpoints.tiny()},row=stream,dtype=float32,max_pixels=1568"
    command = [sys.executable, "-W", "ignore", "-m", "lmms_eval", "--model", "svlm", "--model_args", model, "--tasks", "made",
               "--include_path", tmp_path / "tasks", "--batch_size", "1", "--output_path", tmp_path / "out"]  # fmt: skip
    subprocess.run(command, check=True, cwd=tmp_path)
    (result,) = (tmp_path / "out").rglob("*results.json")
    assert json.loads(result.read_text())["results"]["made"]["said,none"] == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [{"row": "stream"}, {"row": "prefix"}, {"recall": "vsb+par", "budget": 64}])
def test_a_model_answers(model, video, arguments):
    svlm = model.Svlm(str(checkpoints.tiny()), dtype="float32", max_pixels=28 * 56, prefix_frames=4, **arguments)
    assert isinstance(svlm._watcher.vlm, StreamingVLM)
    docs = [[shown(video), text("Who?")], [shown(video, end_time=2.0), text("Who?")]]
    first = ask(svlm, *docs)
    assert all(first) and ask(svlm, *docs) == first
