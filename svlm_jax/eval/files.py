"""Published annotation files as they are: JSON, JSON lines, parquet; errors name the file, the entry and the field."""

import importlib
import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from svlm_jax.errors import EvalError


class Entry:
    """One annotation; `entry["field"]` raises an EvalError that says where the field is missing."""

    def __init__(self, data: Any, where: str):
        if not isinstance(data, Mapping):
            raise EvalError(f"{where} is {type(data).__name__}: expected an object with named fields.")
        self.data, self.where = data, where

    def __getitem__(self, name: str) -> Any:
        if self.data.get(name) is None:
            raise EvalError(f"{self.where} has no field {name!r}; it has {', '.join(sorted(map(str, self.data))) or 'none'}.")
        return self.data[name]

    def get(self, name: str, default: Any = None) -> Any:
        value = self.data.get(name)
        return default if value is None else value

    def text(self, name: str) -> str:
        return str(self[name])

    def number(self, name: str) -> float:
        return self._number(name, float)

    def whole(self, name: str) -> int:
        return int(self._number(name, int))

    def options(self, name: str) -> tuple[str, ...]:
        """A list of texts."""
        value = self[name]
        if isinstance(value, str) or not isinstance(value, Sequence) or not value:
            raise EvalError(f"{self.where}, field {name!r} is {value!r}: expected a list of options.")
        return tuple(str(option) for option in value)

    def entries(self, name: str) -> "list[Entry]":
        """A list of annotations inside this one."""
        value = self[name]
        if not isinstance(value, list):
            raise EvalError(f"{self.where}, field {name!r} is {type(value).__name__}: expected a list.")
        return [Entry(part, f"{self.where}, {name}[{i}]") for i, part in enumerate(value)]

    def _number(self, name: str, kind: type[int] | type[float]) -> float:
        try:
            return kind(self[name])
        except (TypeError, ValueError):
            raise EvalError(f"{self.where}, field {name!r} is {self[name]!r}: expected a number.") from None


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
    try:
        if path.suffix == ".parquet":
            return _parquet(path)
        if path.suffix == ".jsonl":
            lines = path.read_text(encoding="utf-8").split("\n")  # texts may hold other ends of lines
            return [json.loads(line) for line in lines if line.strip()]
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EvalError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise EvalError(f"{path} is no JSON: {error}.") from None


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
    return list(importlib.import_module("pyarrow.parquet").read_table(path).to_pylist())


def clock(text: str) -> float:
    """Seconds of "00:00:31", "0:31" or "31.5"; ValueError when it is none of them."""
    seconds = 0.0
    for part in str(text).strip().split(":"):
        seconds = seconds * 60 + float(part)
    return seconds
