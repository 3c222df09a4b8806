"""From records to scores: per task, per track and in total, official beside strict, and every item accounted for."""

import collections
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from svlm_jax.eval.benchmark import Benchmark
from svlm_jax.eval.items import Item

Records = Mapping[str, Mapping[str, Any]]


def report(benchmark: Benchmark, items: Sequence[Item], records: Records) -> dict[str, Any]:
    """Scores in percent over all `items`, and counts.

    An item without an answer scores 0, as in the published scorers; `counts` says how many there are. Benchmarks that a judge
    decides have no scores here, see `judge`.
    """
    found = [records.get(item.id) for item in items]
    result: dict[str, Any] = {"benchmark": benchmark.name, "counts": counts(items, records)}
    if benchmark.grade is not None:
        for reading in ("official", "strict"):
            points = [float((record or {}).get(reading, 0.0)) for record in found]
            result[reading] = averages(benchmark, items, points)
    result["cost"] = _cost([record for record in found if record and "response" in record])
    return result


def counts(items: Sequence[Item], records: Records) -> dict[str, Any]:
    """How many items were answered, and what became of the others; `skipped` is by reason."""
    found = [records[item.id] for item in items if item.id in records]
    answered = [record for record in found if "response" in record]
    skipped = collections.Counter(str(record["skipped"]) for record in found if "skipped" in record)
    return {
        "items": len(items),
        "answered": len(answered),
        "missing": len(items) - len(found),
        "skipped": dict(sorted(skipped.items())),
        "unparsed": sum(record.get("parsed") is False for record in answered),
        "empty": sum(not str(record["response"]).strip() for record in answered),
    }


def averages(benchmark: Benchmark, items: Sequence[Item], points: Iterable[float]) -> dict[str, Any]:
    """Percent by task, by track, and in total as the benchmark averages. A track is the mean of its tasks for "tracks"."""
    by_task: dict[str, list[float]] = collections.defaultdict(list)
    by_track: dict[str, list[float]] = collections.defaultdict(list)
    tasks_of: dict[str, set[str]] = collections.defaultdict(set)
    everything = []
    for item, point in zip(items, points, strict=True):
        by_task[f"{item.track}/{item.task}" if benchmark.average != "tracks" and item.track else item.task].append(point)
        by_track[item.track].append(point)
        tasks_of[item.track].add(item.task)
        everything.append(point)
    tasks = {name: _mean(values) for name, values in sorted(by_task.items())}
    if benchmark.average == "tracks":
        tracks = {track: _mean(tasks[name] for name in names) for track, names in sorted(tasks_of.items())}
        total = _mean(tracks.values())
    else:
        tracks = {track: _mean(values) for track, values in sorted(by_track.items()) if track}
        total = _mean(tasks.values() if benchmark.average == "tasks" else everything)
    return {"total": _percent(total), "tracks": _percents(tracks), "tasks": _percents(tasks)}


def _cost(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Tokens in the cache and milliseconds of an answer: what the score was bought with."""
    tokens = [record["tokens"] for record in records if record.get("tokens")]
    times = [record["ms"] for record in records if record.get("ms")]
    return {
        "tokens_mean": round(statistics.fmean(tokens)) if tokens else None,
        "tokens_most": max(tokens, default=None),
        "answer_ms_median": round(statistics.median(times), 1) if times else None,
    }


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return statistics.fmean(values) if values else 0.0


def _percent(value: float) -> float:
    return round(100 * value, 2)


def _percents(values: Mapping[str, float]) -> dict[str, float]:
    return {name: _percent(value) for name, value in values.items()}
