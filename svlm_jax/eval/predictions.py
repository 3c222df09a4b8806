"""Commentary in the files that the published scripts exchange, so that any run can be the baseline of another.

LiveSports-3K-CC has a line {"video_id", "event_id", "begin", "end", "pred"} for an event. Inf-Streams-Eval has a line {"video",
"chunk_start", "chunk_end", "items": [{"start_time", "end_time", "response"}]} for a game.
"""

import collections
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from svlm_jax.errors import EvalError
from svlm_jax.eval import files
from svlm_jax.eval.files import Entry
from svlm_jax.eval.items import Item
from svlm_jax.host.files import json_text, write_text

PREDICTIONS = "predictions.jsonl"  # in the folder of a row


def write_predictions(path: Path, items: Sequence[Item], records: Mapping[str, Mapping[str, Any]]) -> None:
    """The commentary of all items that have some."""
    said = [(item, records[item.id]) for item in items if "response" in records.get(item.id, {})]
    if said and said[0][0].origin is not None:
        lines = _games(said)
    else:
        lines = [_event(item, str(record["response"])) for item, record in said]
    write_text(path, "".join(json_text(line) + "\n" for line in lines))


def read_predictions(path: Path, items: Sequence[Item]) -> dict[str, str]:
    """By id of the items: what a file of predictions says to them. Items that it does not cover are left out."""
    if not path.is_file():
        raise EvalError(f"{path} is no file; expected the predictions of a baseline as JSON lines.")
    entries = files.entries(path)
    if items and items[0].origin is not None:
        return _read_games(entries, items)
    found = {f"{entry.text('video_id')}_{entry.text('event_id')}": entry.text("pred", "") for entry in entries}
    return {item.id: found[item.event] for item in items if found.get(item.event, "").strip()}


def _event(item: Item, text: str) -> dict[str, Any]:
    video, _, event = item.event.rpartition("_")
    return {"video_id": video, "event_id": int(event) if event.isdigit() else event, "begin": item.start, "end": item.time,
            "pred": text}  # fmt: skip


def _games(said: Sequence[tuple[Item, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    lines: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
    for item, record in said:
        spoken = record.get("said") or [[item.start, item.time, record["response"]]]
        lines[item.event] += [{"start_time": start, "end_time": end, "response": text} for start, end, text in spoken]
    games = []
    for video, parts in lines.items():
        parts.sort(key=lambda part: part["end_time"])
        games.append(
            {"video": video, "chunk_start": parts[0]["start_time"], "chunk_end": parts[-1]["end_time"], "items": parts}
        )
    return games


def _read_games(entries: Sequence[Entry], items: Sequence[Item]) -> dict[str, str]:
    lines: dict[str, list[tuple[int, str]]] = collections.defaultdict(list)
    for entry in entries:
        for part in entry.entries("items"):
            lines[Path(entry.text("video")).name].append((int(part.number("end_time")), part.text("response", "")))
    found = {}
    for item in items:
        mine = [
            text for end, text in sorted(lines[item.event], key=lambda line: line[0]) if item.start < end <= (item.time or 0)
        ]
        if mine:
            found[item.id] = " ".join(text.strip() for text in mine if text.strip())
    return found
