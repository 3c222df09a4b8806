"""A bounded run of the fuzzer, and that it would notice."""

import threading
import time
from pathlib import Path

import pytest

from svlm_jax.errors import DataError
from tests.fuzz import readers, run
from tests.fuzz.mutate import mutants

FEW = {"video": 6, "tokenizer": 20, "session: ": 6, "HTTP": 20, "metrics": 20, "snapshot": 20}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of Orbax, which gives up half-way
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


class TwoLines(DataError):
    """What no error of ours can say, as their base makes one line of it."""

    def __str__(self) -> str:
        return "two\nlines"


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
        (raises(TwoLines()), "foreign"),
        (hangs, "hangs"),
        (lambda folder: threading.Event().wait(), "hangs"),
        (lambda folder: None, "read"),
    ],
)
def test_every_ending_is_told(monkeypatch, read, ending):
    monkeypatch.setitem(readers.READERS, "it", readers.Reader("a", lambda: [b"abc"], read))
    monkeypatch.setattr(run, "LONGEST", 0.1)
    monkeypatch.setattr(run, "PATIENCE", 0.2)
    assert run.fuzz("it", 2)[ending] == 2


def test_a_busy_machine_is_no_hang(monkeypatch):
    """What takes long by the wall and no processor time is a hang only when it does not end at all."""
    monkeypatch.setitem(readers.READERS, "it", readers.Reader("a", lambda: [b"abc"], lambda folder: time.sleep(0.3)))
    monkeypatch.setattr(run, "LONGEST", 0.1)
    assert run.fuzz("it", 1)["read"] == 1


@pytest.mark.parametrize(("again", "counted"), [("read", {"read": 3}), ("hangs", {"read": 2, "hangs": 1})])
def test_a_hang_counts_when_it_hangs_alone(monkeypatch, tmp_path, again, counted):
    """The second of three files hangs, and is read again in a process of its own."""
    asked = []

    def in_process(name, count, seed, first, failures):
        asked.append((first, count))
        if (first, count) == (0, 3):
            return {"inputs": 1, "read": 1}, "hangs"
        if (first, count) == (1, 1) and again == "hangs":
            return {}, "hangs"
        return {"inputs": count, "read": count}, None

    monkeypatch.setitem(readers.READERS, "it", readers.Reader("a", lambda: [b"abc"], hangs))
    monkeypatch.setattr(run, "_in_process", in_process)
    counts = run.fuzz_in_process("it", 3, seed=0, failures=tmp_path)
    assert {key: value for key, value in counts.items() if value and key in ("read", "hangs", "foreign")} == counted
    assert asked == [(0, 3), (1, 1), (2, 1)] and len(list(tmp_path.glob("it-1"))) == counts["hangs"]
