"""Results on disk: a manifest that says what was run, and one JSON line an item, written as soon as it is known.

    FOLDER/manifest.json                 the run: model, settings, protocol, versions
    FOLDER/items.jsonl                   or items.2-of-8.jsonl from one of several hosts
    FOLDER/report.json                   made from all of them

A later line of an item replaces an earlier one, so what failed can be tried again; a line torn by a kill is cut off.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from svlm_jax.errors import EvalError
from svlm_jax.eval.results import write_json

CHANGING = ("date", "machine", "commit", "command", "limit")  # may differ when a run goes on; all of them are kept
CONTINUED = "continued"  # in a manifest: these of every later run that was not the same as the one before


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The complete lines of a file of records."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise EvalError(f"{path} cannot be read: {error.strerror}.") from error
    for number, line in enumerate(text.split("\n")[:-1], 1):  # answers may hold other ends of lines
        try:
            record = json.loads(line)
        except ValueError as error:
            raise EvalError(f"{path}, line {number}, is no JSON: {error}.") from None
        if not isinstance(record, dict):
            raise EvalError(f"{path}, line {number}: expected an object.")
        yield record


def stored(folder: Path) -> dict[str, dict[str, Any]]:
    """By id, the newest record of every item that any host has written; an answer is not replaced by a failure."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("items*.jsonl")):
        for record in read_lines(path):
            name = str(record.get("id"))
            if "response" in record or "response" not in found.get(name, {}):
                found[name] = record
    return found


class Records:
    """The records of one row, or of one host's share of it.

    Args:
      folder: made if need be. manifest: what is run; EvalError when the folder holds results of something else.
      shard: (number from 1, of) when several hosts share the work.
    """

    def __init__(self, folder: Path, manifest: Mapping[str, Any], shard: tuple[int, int] = (1, 1)) -> None:
        self.folder = folder
        self._path = folder / ("items.jsonl" if shard[1] == 1 else f"items.{shard[0]}-of-{shard[1]}.jsonl")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EvalError(f"{folder} cannot be made: {error.strerror}.") from error
        _same_run(folder / "manifest.json", manifest)
        mend(self._path)

    def all(self) -> dict[str, dict[str, Any]]:
        return stored(self.folder)

    def append(self, record: Mapping[str, Any]) -> None:
        line = json.dumps(record, ensure_ascii=False) + "\n"
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            raise EvalError(f"{self._path} cannot be written: {error.strerror}.") from error


def mend(path: Path) -> None:
    """Cuts off a last line that a kill has torn."""
    if path.exists():
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.truncate(path, whole)


def _same_run(path: Path, manifest: Mapping[str, Any]) -> None:
    if not path.exists():
        write_json(path, dict(manifest))
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise EvalError(f"{path} is no manifest of an evaluation; expected an empty folder or one to go on in.") from None
    wanted = json.loads(json.dumps(dict(manifest)))
    for name in sorted({*found, *wanted} - {*CHANGING, CONTINUED}):
        if found.get(name) != wanted.get(name):
            raise EvalError(
                f"{path.parent} holds results of another run: {name} was {_short(found.get(name))}, now it is "
                f"{_short(wanted.get(name))}; expected another folder."
            )
    runs = [found, *found.get(CONTINUED, [])]
    if any(runs[-1].get(name) != wanted.get(name) for name in CHANGING if name != "date"):
        runs.append({name: wanted.get(name) for name in CHANGING})
        write_json(path, {**found, CONTINUED: runs[1:]})


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
