"""A bounded run of the fuzzer, and that it would notice."""

from pathlib import Path

import pytest

from svlm_jax.errors import DataError
from tests.fuzz import readers, run
from tests.fuzz.mutate import mutants

FEW = {"video": 6, "tokenizer": 20}


@pytest.mark.parametrize("name", readers.READERS)
def test_nothing_but_our_errors_leaves_a_reader(name, tmp_path):
    count = next((few for part, few in FEW.items() if part in name), 60)
    counts = run.fuzz(name, count, seed=1, failures=tmp_path)
    assert counts["read"] + counts["refused"] == count, [path.read_text() for path in tmp_path.glob("*/ending.txt")]
    assert counts["memory_mb"] < 500


@pytest.mark.parametrize("name", readers.READERS)
def test_good_files_are_read(name, tmp_path):
    """Else a reader that refuses everything would pass."""
    reader = readers.READERS[name]
    reader.prepare(tmp_path)
    for seed in reader.seeds():
        (tmp_path / reader.file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / reader.file).write_bytes(seed)
        reader.read(tmp_path)


def test_the_same_number_gives_the_same_file():
    seeds = [b'{"a": [1, 2]}', b"1\n2\n3"]
    files = list(mutants(seeds, 50))
    assert files[20:30] == list(mutants(seeds, 10, first=20)) and len(set(files)) > 30
    assert files != list(mutants(seeds, 50, seed=1))


def raises(error: BaseException):
    def read(folder: Path) -> None:
        raise error

    return read


def hangs(folder: Path) -> None:
    while True:
        pass


@pytest.mark.parametrize(
    ("read", "ending"),
    [
        (raises(DataError("one sentence.")), "refused"),
        (raises(ValueError("x")), "foreign"),
        (raises(RecursionError()), "foreign"),
        (raises(DataError("two\nlines")), "foreign"),
        (hangs, "hangs"),
        (lambda folder: None, "read"),
    ],
)
def test_every_ending_is_told(monkeypatch, read, ending):
    monkeypatch.setitem(readers.READERS, "it", readers.Reader("a", lambda: [b"abc"], read))
    monkeypatch.setattr(run, "LONGEST", 0.1)
    assert run.fuzz("it", 2)[ending] == 2
