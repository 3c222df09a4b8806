"""Published files: every kind of file and field that can be damaged ends in a sentence."""

import json

import pytest

from svlm_jax.errors import EvalError
from svlm_jax.eval import files
from svlm_jax.eval.benchmarks import inf_streams
from svlm_jax.eval.items import Item
from svlm_jax.eval.predictions import read_predictions
from svlm_jax.eval.records import Records, stored
from svlm_jax.eval.results import Rows


def entry(**fields):
    return files.Entry(fields, "a.json, entry 3")


def test_fields_have_kinds():
    found = entry(id=7, start="12.5", count=2.0, options=["a", 2], at="1:02:03.5", none=None)
    assert (found.text("id"), found.number("start"), found.whole("count")) == ("7", 12.5, 2)
    assert found.options("options") == ("a", "2") and found.clock("at") == 3723.5
    assert found.text("none", "-") == "-" and "none" not in found


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e308, 10**400, "1e999", "nan", True, [1], {}])
def test_numbers_are_finite_and_in_range(value):
    for read in (entry(x=value).number, entry(x=value).whole):
        with pytest.raises(EvalError, match=r"^a.json, entry 3, field 'x' is .*: expected a (finite|whole) number"):
            read("x")


@pytest.mark.parametrize("text", ["", "nan", "1:2:3:4", "-1:00", "1:xx", "1e5", "9" * 400, 10**400])
def test_clocks_that_are_none(text):
    with pytest.raises(EvalError, match="'x'"):
        entry(x=text).clock("x")


def test_a_window_of_absurd_times(tmp_path):
    game = {"video": "g/a.mp4", "content": [[0, 1, "a"], [1, 10**400, "b"]]}
    (tmp_path / "eval_all_metadata.jsonl").write_text(json.dumps(game))
    with pytest.raises(EvalError, match=r"field 'content\[1\]\[1\]' is 1000.*expected a finite number"):
        inf_streams.read(tmp_path)


def test_predictions_of_absurd_times(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({"video": "v.mp4", "items": [{"end_time": float("inf"), "response": "a"}]}))
    with pytest.raises(EvalError, match="'end_time' is inf"):
        read_predictions(path, [Item("a", "v.mp4", "", 10.0, origin=0.0, event="v.mp4")])


@pytest.mark.parametrize(
    ("record", "field"),
    [
        ({"id": "a", "response": 3}, "response"),
        ({"id": "a", "official": 1e308}, "official"),
        ({"id": "a", "said": [[0, 1]]}, "said"),
    ],
)
def test_damaged_records_are_named(tmp_path, record, field):
    (tmp_path / "items.jsonl").write_text(json.dumps(record) + "\n")
    with pytest.raises(EvalError, match=rf"items\.jsonl, line 1, field '{field}"):
        stored(tmp_path)


def test_null_in_a_record_is_absent(tmp_path):
    (tmp_path / "items.jsonl").write_text('{"id": "a", "response": "x", "official": null, "note": null}\n')
    assert stored(tmp_path) == {"a": {"id": "a", "response": "x", "note": None}}


@pytest.mark.parametrize("manifest", ["[1]", '{"continued": 3}', '{"model": "\\ud800"}', "{" * 3000])
def test_damaged_manifests_are_named_and_kept(tmp_path, manifest):
    (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(EvalError, match="no manifest of an evaluation"):
        Records(tmp_path, {"model": "m"})
    assert (tmp_path / "manifest.json").read_text() == manifest


@pytest.mark.parametrize("text", ["{", '{"runs": 3}', '{"rows": []}', '{"settings": "x"}'])
def test_damaged_measurements_are_errors_of_evaluation(tmp_path, text):
    (tmp_path / "rows.json").write_text(text)
    with pytest.raises(EvalError, match=r"rows\.json"):
        Rows(tmp_path / "rows.json", {}, {})


def test_a_parquet_file_that_is_none(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "a.parquet").write_bytes(b"PAR1" + bytes(40) + b"PAR1")
    with pytest.raises(EvalError, match="no readable parquet"):
        files.load(tmp_path / "a.parquet")
