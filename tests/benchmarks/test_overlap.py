"""Training with and without overlap, in small form."""

import json

import pytest

from benchmarks import overlap
from svlm_jax.data.annotations import AnnotationFile


def test_chunks_overlap_or_not(tmp_path):
    counts, starts = {}, {}
    for name, stride in overlap.STRIDES.items():
        path = tmp_path / f"{name}_with_seeks.jsonl"
        counts[name] = overlap.write_chunks(path, range(5, 7), 2.0, stride)
        file = AnnotationFile(path)
        starts[name] = [(file[i].video, file[i].start, file[i].end) for i in range(len(file))]
    assert counts == {"with overlap": 2 * 9, "without overlap": 2 * 5}
    assert set(starts["without overlap"]) < set(starts["with overlap"])
    assert {video for video, _, _ in starts["with overlap"]} == {"match-5.mp4", "match-6.mp4"}


def test_runs_differ_in_their_annotations_only(tmp_path):
    one, two = (overlap.config_of("same", tmp_path / f"{name}_with_seeks.jsonl", 7, 3) for name in "ab")
    assert one.data.sets != two.data.sets
    assert (one.loop, one.model, one.seed, one.evaluation, one.optimizer) == (
        two.loop,
        two.model,
        two.seed,
        two.evaluation,
        two.optimizer,
    )
    assert one.loop.steps == 7 and one.loop.accumulate == 1
    other = overlap.config_of("same", tmp_path / "a_with_seeks.jsonl", 7, 4)
    assert other.seed != one.seed and other.data.pipeline.seed != one.data.pipeline.seed and other.data.sets == one.data.sets


@pytest.mark.slow
def test_both_are_trained_streamed_and_kept(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    argv = [
        "--matches",
        "1",
        "--minutes",
        "1",
        "--steps",
        "1",
        "--unseen-minutes",
        "0.1",
        "--seeds",
        "3",
        "--folder",
        "runs",
        "--out",
        "found.json",
    ]
    assert overlap.main(argv) == 0
    rows = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert {name: (row["chunks"], len(row["matches"])) for name, row in rows.items()} == {
        "with overlap, seed 3": (4, 3),
        "without overlap, seed 3": (2, 3),
    }
    assert overlap.main(argv) == 0
    assert capsys.readouterr().out.count("there already") == 2
