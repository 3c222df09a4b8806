"""Published annotation files as they are: JSON, JSON lines, parquet; errors name the file, the entry and the field."""

import importlib
import importlib.util
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from svlm_jax.errors import EvalError
from svlm_jax.host.json_files import read_json, read_json_lines
from svlm_jax.host.schema import REQUIRED, ListOf, Number, Record, Text, Whole

# Ids and numbers are text in some published files, and texts are numbers in others.
TEXT = Text(numbers=True)
NUMBER = Number(least=-1e9, most=1e9, digits=True)
WHOLE = Whole(least=-(2**31), most=2**31, digits=True)
_CLOCK = re.compile(r"(?:(?:(\d{1,6}):)?(\d{1,6}):)?(\d{1,9}(?:\.\d{1,9})?)", re.ASCII)


class Entry(Record):
    """One annotation; EvalErrors say where a field is missing or what it is instead of what was expected."""

    def __init__(self, data: Any, where: str):
        super().__init__(data, where, EvalError)

    def text(self, name: str, default: Any = REQUIRED) -> str:
        return self.get(name, TEXT, default)

    def number(self, name: str) -> float:
        return self.get(name, NUMBER)

    def whole(self, name: str) -> int:
        return self.get(name, WHOLE)

    def options(self, name: str) -> tuple[str, ...]:
        """A list of texts."""
        return self.get(name, ListOf(TEXT, least=1))

    def entries(self, name: str) -> "list[Entry]":
        """A list of annotations inside this one."""
        return [Entry(record.data, record.where) for record in self.records(name)]

    def clock(self, name: str) -> float:
        """Seconds of "00:00:31", "0:31" or "31.5"."""
        found = _CLOCK.fullmatch(self.text(name).strip())
        if found is None:
            raise self.wrong(name, self.data[name], "HH:MM:SS")
        hours, minutes, seconds = found.groups()
        return int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(seconds)


def find(folder: str | Path, *names: str) -> Path:
    """The first of the files `names` (patterns allowed) in a data folder; EvalError when there is none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise EvalError(f"{folder} is no folder; expected the benchmark's data with {names[0]} in it.")
    for name in names:
        found = sorted(folder.glob(name))
        if found:
            return found[0]
    raise EvalError(f"{folder} does not hold this benchmark: expected {' or '.join(names)} in it.")


def entries(path: Path) -> list[Entry]:
    """The annotations of a file, flattened by one level where they come in lists of lists."""
    return [Entry(data, f"{path}, entry {i}") for i, data in enumerate(_flat(_records(path)))]


def _flat(records: Sequence[Any]) -> Iterator[Any]:
    for record in records:
        if isinstance(record, list):
            yield from record
        else:
            yield record


def load(path: Path) -> Any:
    """What a file of JSON, JSON lines or parquet holds."""
    if path.suffix == ".parquet":
        return _parquet(path)
    if path.suffix == ".jsonl":
        return [value for _, value in read_json_lines(path, EvalError)]
    return read_json(path, EvalError)


def _records(path: Path) -> list[Any]:
    data = load(path)
    if not isinstance(data, list):
        raise EvalError(f"{path} holds {type(data).__name__}: expected a list of annotations.")
    return data


def _parquet(path: Path) -> list[Any]:
    if importlib.util.find_spec("pyarrow") is None:
        raise EvalError(
            f"{path} is a parquet file: expected pyarrow (pip install svlm-jax[eval]), or the same rows as .jsonl or .json."
        )
    parquet, arrow = importlib.import_module("pyarrow.parquet"), importlib.import_module("pyarrow")
    try:
        return list(parquet.read_table(path).to_pylist())
    except (OSError, ValueError, OverflowError, arrow.ArrowException) as error:
        raise EvalError(f"{path} is no readable parquet file: {error}.") from error
