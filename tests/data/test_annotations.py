"""Annotations on disk: the published format, its index, and what is said about files that do not fit."""

import json

import pytest

from svlm_jax.data.annotations import Annotation, AnnotationFile, Question, Word, index_path, write_annotations
from svlm_jax.errors import DataError, OutputError


def annotation(number: int = 0, **changes):
    start = 12.0 * number
    words = (Word(start + 0.2, start + 0.5, "Córner"), Word(start + 1.1, start + 1.6, "kick."))
    return Annotation(**{"video": f"games/{number}.mp4", "start": start, "end": start + 24, "words": words, **changes})


def test_what_is_written_is_read_back(tmp_path):
    questions = (Question("qa", 3.5, "Who leads?", "Red."),)
    samples = [annotation(0), annotation(1, questions=questions, previous="Kick off.", title="Final", prompt="Commentate.")]
    path = tmp_path / "train_with_seeks.jsonl"
    assert write_annotations(path, samples) == 2
    file = AnnotationFile(path)
    assert list(file) == samples and file[1] == samples[1]
    assert json.loads((tmp_path / "train_seeks.jsonl").read_text())[0] == 0


def test_a_line_of_the_published_form_is_understood(tmp_path):
    line = [
        {
            "role": "user",
            "content": [
                {"type": "video", "video": "a/b.mp4", "video_start": 16.7, "video_end": 40},
                {"type": "text", "text": "Commentate.", "previous": "so far", "title": "A game"},
            ],
        },
        {"role": "assistant", "content": [{"type": "text_stream", "text_stream": [[16.8, 16.9, "all"], [17, 17.5, "right"]]}]},
    ]
    path = tmp_path / "x_with_seeks.jsonl"
    path.write_text(json.dumps(line) + "\n")
    assert AnnotationFile(path)[0] == Annotation(
        "a/b.mp4", 16.7, 40.0, (Word(16.8, 16.9, "all"), Word(17.0, 17.5, "right")), (), "so far", "A game", "Commentate."
    )
    assert annotation(2).to_messages() == json.loads(json.dumps(annotation(2).to_messages()))
    assert set(annotation().to_messages()[0]["content"][0]) == {"type", "video", "video_start", "video_end"}


@pytest.mark.parametrize("trailing", ["", "\n"])
def test_an_index_inside_the_file_is_used(tmp_path, trailing):
    path = tmp_path / "live.jsonl"
    lines = [json.dumps(annotation(n).to_messages()) + "\n" for n in range(3)]
    seeks = [0, len(lines[0].encode()), len((lines[0] + lines[1]).encode())]
    path.write_text("".join(lines) + json.dumps(seeks) + trailing)
    assert list(AnnotationFile(path)) == [annotation(n) for n in range(3)]


def test_without_an_index_the_file_is_read_through(tmp_path):
    path = tmp_path / "x.jsonl"
    write_annotations(path, [annotation(n) for n in range(3)])
    index_path(path).unlink()
    assert [sample.video for sample in AnnotationFile(path)] == ["games/0.mp4", "games/1.mp4", "games/2.mp4"]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{broken", "sample 1: the line is no JSON"),
        ("[]", "has no field 'text_stream'"),
        ('[{"role": "user", "content": [{"type": "video"}]}]', "has no field 'text_stream'"),
        (json.dumps([{"content": [{"text_stream": [[0, 1, "a"]]}]}]), "has no field 'video'"),
        (json.dumps([{"content": [{"text_stream": [[0, 1]]}]}]), r"'text_stream\[0\]' is \[0, 1\]: expected an array of 3"),
        (json.dumps([{"content": [{"text_stream": [[0, 1, 7]]}]}]), r"'text_stream\[0\]\[2\]' is 7: expected text"),
        ("3", "'messages' is 3: expected an array"),
        (
            json.dumps([{"content": [{"text_stream": [[0, float("inf"), "a"]]}]}]),
            r"\[0\]\[1\]' is inf: expected a finite number",
        ),
        (json.dumps(annotation().to_messages()).replace('"video_end": 24.0', '"video_end": 0'), "is empty"),
        (json.dumps(annotation().to_messages()).replace('"video_end": 24.0', '"video_end": 1e8'), "too long.*86400 s at most"),
    ],
)
def test_a_broken_line_is_named_and_spoils_no_other(tmp_path, line, sentence):
    path = tmp_path / "x.jsonl"
    good = json.dumps(annotation().to_messages())
    path.write_text(f"{good}\n{line}\n{good}\n")
    file = AnnotationFile(path)
    assert file[0] == file[2] == annotation()
    with pytest.raises(DataError, match=sentence) as error:
        file[1]
    assert str(path) in str(error.value)


def longer(path):
    with open(path, "a") as file:
        file.write(json.dumps(annotation(9).to_messages()) + "\n")


def shorter(path):
    path.write_text(path.read_text()[:100])


def edited(path):
    path.write_text(path.read_text().replace("games/0", "other games/0"))


def scrambled(path):
    index_path(path).write_text("[0, 40, 30]")


@pytest.mark.parametrize("change", [longer, shorter, edited, scrambled])
def test_an_index_that_is_out_of_date_is_named(tmp_path, change):
    path = tmp_path / "x_with_seeks.jsonl"
    write_annotations(path, [annotation(n) for n in range(3)])
    change(path)
    with pytest.raises(DataError, match=r"the index .*x_seeks.jsonl does not fit .*x_with_seeks.jsonl"):
        list(AnnotationFile(path))


@pytest.mark.parametrize(
    ("index", "sentence"),
    [("{", "the index .* is no JSON"), ('{"a": 1}', "expected an array"), ("[0, NaN]", "nan"), ("[]", "empty")],
)
def test_an_index_that_is_none_is_named(tmp_path, index, sentence):
    path = tmp_path / "x.jsonl"
    write_annotations(path, [annotation()])
    index_path(path).write_text(index)
    with pytest.raises(DataError, match=sentence):
        AnnotationFile(path)


def test_a_file_that_was_not_finished_leaves_the_one_before(tmp_path):
    path = tmp_path / "x_with_seeks.jsonl"
    write_annotations(path, [annotation(0)])

    def ends():
        yield annotation(1)
        raise DataError("no answer.")

    with pytest.raises(DataError, match="no answer"):
        write_annotations(path, ends())
    assert list(AnnotationFile(path)) == [annotation(0)] and len(list(tmp_path.iterdir())) == 2


def test_files_without_samples_are_named(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        AnnotationFile(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(DataError, match="holds no samples"):
        AnnotationFile(tmp_path / "empty.jsonl")
    with pytest.raises(OutputError, match="cannot be written"):
        write_annotations(tmp_path / "absent" / "x.jsonl", [])
