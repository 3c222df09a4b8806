"""Results on disk: a manifest that says what was run, and one JSON line an item, written as soon as it is known.

    FOLDER/manifest.json                 the run: model, settings, protocol, versions
    FOLDER/items.jsonl                   or items.2-of-8.jsonl from one of several hosts
    FOLDER/report.json                   made from all of them

A later line of an item replaces an earlier one, so what failed can be tried again; a line torn by a kill is cut off.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from svlm_jax.errors import EvalError
from svlm_jax.host.files import Appender, write_json, writing
from svlm_jax.host.json_files import read_object, read_record_lines
from svlm_jax.host.schema import Flag, Kind, ListOf, Number, Object, Record, Row, Text, Whole, brief

CHANGING = ("date", "machine", "commit", "command", "limit")  # may differ when a run goes on; all of them are kept
CONTINUED = "continued"  # in a manifest: these of every later run that was not the same as the one before


# What a report reads of a record. Others may write more.
_SECONDS, _SHARE = Number(least=-1e9, most=1e9), Number(least=0, most=1)
_KINDS: Mapping[str, Kind[Any]] = {
    "id": Text(numbers=True),
    "response": Text(),
    "official": _SHARE,
    "strict": _SHARE,
    "parsed": Flag(),
    "skipped": Text(),
    "said": ListOf(Row((_SECONDS, _SECONDS, Text()))),
    "at": _SECONDS,
    "tokens": Whole(least=0),
    "ms": Number(least=0),
}


def stored(folder: Path) -> dict[str, dict[str, Any]]:
    """By id, the newest record of every item that any host has written; an answer is not replaced by a failure."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("items*.jsonl")):
        for line in read_record_lines(path, EvalError, torn=True):
            rest = {name: value for name, value in line.data.items() if name not in _KINDS}
            record = {**rest, **line.known(_KINDS)}
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
        name = "items.jsonl" if shard[1] == 1 else f"items.{shard[0]}-of-{shard[1]}.jsonl"
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        _same_run(folder / "manifest.json", manifest)
        self._lines = Appender(folder / name)

    def all(self) -> dict[str, dict[str, Any]]:
        return stored(self.folder)

    def append(self, record: Mapping[str, Any]) -> None:
        self._lines.append(record)


def _same_run(path: Path, manifest: Mapping[str, Any]) -> None:
    if not path.exists():
        write_json(path, dict(manifest))
        return
    try:
        found = read_object(path, EvalError)
        later = Record(found, str(path), EvalError).get(CONTINUED, ListOf(Object()), ())
    except EvalError as error:
        raise EvalError(f"{error} It is no manifest of an evaluation; expected an empty folder or one to go on in.") from None
    wanted = json.loads(json.dumps(dict(manifest)))
    for name in sorted({*found, *wanted} - {*CHANGING, CONTINUED}):
        if found.get(name) != wanted.get(name):
            raise EvalError(
                f"{path.parent} holds results of another run: {brief(name)} was {_short(found.get(name))}, now it is "
                f"{_short(wanted.get(name))}; expected another folder."
            )
    runs = [found, *later]
    if any(runs[-1].get(name) != wanted.get(name) for name in CHANGING if name != "date"):
        runs.append({name: wanted.get(name) for name in CHANGING})
        write_json(path, {**found, CONTINUED: runs[1:]})


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
