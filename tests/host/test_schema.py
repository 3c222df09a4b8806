"""Kinds of values, records, and files of JSON."""

import json

import pytest

from svlm_jax.errors import DataError, EvalError
from svlm_jax.host.json_files import read_json, read_object, read_record_lines
from svlm_jax.host.schema import Choice, Either, Flag, ListOf, Nullable, Number, Object, Record, Row, Text, Unfit, Whole
from svlm_jax.host.text_files import decode


@pytest.mark.parametrize(
    ("kind", "value", "read"),
    [
        (Number(), 3, 3.0),
        (Number(least=0, most=5), 5, 5.0),
        (Number(digits=True), "12.5", 12.5),
        (Whole(), 2.0, 2),
        (Whole(digits=True), "7", 7),
        (Text(numbers=True), 12, "12"),
        (Flag(), False, False),
        (Choice(("a", "b")), "b", "b"),
        (ListOf(Whole()), [1, 2], (1, 2)),
        (Row((Number(), Text())), [1, "x"], (1.0, "x")),
        (Either((Whole(), ListOf(Whole()))), [3], (3,)),
        (Nullable(Whole()), None, None),
    ],
)
def test_what_fits(kind, value, read):
    found = kind.read(value)
    assert found == read and type(found) is type(read)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        *((Number(), value) for value in (float("nan"), float("inf"), True, "1", None, 10**400, [1])),
        (Number(least=0), -1e-9),
        (Number(above=0), 0),
        (Number(most=5), 5.1),
        *((Number(digits=True), value) for value in ("nan", "1e999", "one", "9" * 5000)),
        *((Whole(), value) for value in (0.5, True, "1", 2**60, 1e308, float("nan"))),
        (Text(), 5),
        (Text(numbers=True), True),
        (Flag(), 1),
        (Choice(("a",)), ["a"]),
        (ListOf(Whole()), "12"),
        (ListOf(Whole(), least=1), []),
        (Row((Number(), Text())), [1]),
        (Object(), []),
        (Nullable(Whole()), "x"),
    ],
)
def test_what_does_not(kind, value):
    with pytest.raises(Unfit):
        kind.read(value)


def test_errors_name_place_field_value_and_expectation():
    record = Record({"words": [[0, 1, "a"], [0, float("nan"), "b"]], "none": None}, "a.json, line 3", DataError)
    with pytest.raises(
        DataError, match=r"^a.json, line 3, field 'words\[1\]\[1\]' is nan: expected a finite number of at least 0\.$"
    ):
        record.get("words", ListOf(Row((Number(), Number(least=0), Text()))))
    with pytest.raises(DataError, match=r"^a.json, line 3 has no field 'none', expected text; it has none, words\.$"):
        record.get("none", Text())
    assert record.get("none", Text(), "absent") == "absent" and record.get("none", Nullable(Text()), "absent") is None
    with pytest.raises(DataError, match=r"field 'word': expected any of words"):
        Record({"word": 1}, "it", DataError).fields({"words": Text()})
    with pytest.raises(DataError, match=r"^it is \[1\]: expected an object"):
        Record([1], "it", DataError)


def test_a_long_value_makes_no_long_sentence():
    said = str(DataError(f"a.json: {'x' * 10**6} is none: expected one of a, b."))
    assert len(said) < 2000 and said.startswith("a.json: xxx") and said.endswith("expected one of a, b.")


def test_the_caller_says_what_an_error_is(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("[1]")
    assert read_json(path, EvalError) == [1]
    for error in (EvalError, DataError):
        with pytest.raises(error, match="expected an object"):
            read_object(path, error)
        with pytest.raises(error, match="cannot be read"):
            read_json(tmp_path / "absent.json", error)
    assert read_object(tmp_path / "absent.json", EvalError, missing_ok=True) == {}


def test_lines_of_json(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes('\ufeff{"a": "\u2028"}\r\n\n{"a": 2}\n{"a": 3'.encode())
    assert [record.data for record in read_record_lines(path, EvalError, torn=True)] == [{"a": "\u2028"}, {"a": 2}]
    with pytest.raises(EvalError, match="line 4 is no JSON"):
        list(read_record_lines(path, EvalError))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_encodings_that_show_themselves(tmp_path, encoding):
    path = tmp_path / "a.json"
    path.write_bytes(json.dumps({"text": "Zoë scores"}, ensure_ascii=False).encode(encoding))
    assert read_json(path, DataError) == {"text": "Zoë scores"}


def test_a_declared_encoding_and_none():
    assert decode("Привет".encode("cp1251"), "it", DataError, encoding="cp1251") == ("Привет", "cp1251")
    with pytest.raises(DataError, match="it is not utf-8 text"):
        decode("Привет".encode("cp1251"), "it", DataError)
    with pytest.raises(DataError, match="'klingon' is no encoding"):
        decode(b"a", "it", DataError, encoding="klingon")
