"""Runs one row of a benchmark: every item ends as a record, whatever happens, and a run that was stopped goes on."""

import collections
import dataclasses
import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from svlm_jax.errors import ConfigError, EvalError, SourceError, StreamError
from svlm_jax.eval import protocols
from svlm_jax.eval.benchmark import Benchmark
from svlm_jax.eval.frames import Video
from svlm_jax.eval.interface import Model
from svlm_jax.eval.items import Item
from svlm_jax.eval.predictions import PREDICTIONS, write_predictions
from svlm_jax.eval.protocols import Outcome, Protocol, Row
from svlm_jax.eval.records import Records
from svlm_jax.eval.report import report
from svlm_jax.eval.results import manifest
from svlm_jax.host.files import write_json
from svlm_jax.host.json_files import read_object
from svlm_jax.models.resize_rule import PUBLISHED, ResizeRule

Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class Run:
    """What is run, apart from the model.

    Attributes:
      data: the benchmark's folder. results: gets a folder for each row.
      limit: only so many items, the first ones. shard: (number from 1, of): this host's share, by video.
      resize: how large frames reach the model.
    """

    benchmark: Benchmark
    data: Path
    results: Path
    protocol: Protocol
    limit: int | None = None
    shard: tuple[int, int] = (1, 1)
    resize: ResizeRule = PUBLISHED

    def __post_init__(self) -> None:
        number, of = self.shard
        if not 1 <= number <= of:
            raise ConfigError(f"shard {number}/{of}: expected a number from 1 to {max(of, 1)}")

    def items(self) -> list[Item]:
        """What is asked; EvalError when the files are not as published, or two items have one name."""
        items = self.benchmark.read(self.data)
        name, count = collections.Counter(item.id for item in items).most_common(1)[0] if items else ("", 0)
        if count != 1:
            raise EvalError(f"{self.data} has {f'{count} items named {name}' if count else 'no items'}: expected one of each.")
        return items[: self.limit]

    def manifest(self, model: Model, row: Row) -> dict[str, Any]:
        """What makes two results comparable."""
        said = {"protocol": dataclasses.asdict(self.protocol), "pixels": dataclasses.asdict(self.resize), "limit": self.limit}
        return manifest(["svlm", *sys.argv[1:]], benchmark=self.benchmark.title, row=row, **model.describe(), **said)

    def video(self, item: Item) -> Video:
        """Where the video of an item lies; a path that does not exist if nowhere, and decoding says so."""
        below = (Path(self.data) / folder / item.video for folder in self.benchmark.videos)
        path = next((path for path in below if path.exists()), Path(self.data) / item.video)
        return Video(path, item.fps, self.resize)


def run_row(run: Run, model: Model, row: Row, *, progress: Progress = lambda done, total: None) -> dict[str, Any]:
    """Answers what has no answer yet, and returns the report, which is also written beside the records."""
    run.benchmark.check_row(row)
    items = run.items()
    records = Records(run.results / row, run.manifest(model, row), run.shard)
    mine = share(items, run.shard)
    done = {name: str(record["response"]) for name, record in records.all().items() if "response" in record}
    count = sum(item.id in done for item in mine)
    progress(count, len(mine))
    for group in protocols.groups(mine, row):
        for record in _records(run, model, group, row, done):
            records.append(record)
            count += 1
            progress(count, len(mine))
    found = records.all()
    if run.benchmark.judging == "pair":
        write_predictions(records.folder / PREDICTIONS, items, found)
    path = records.folder / "report.json"
    before = read_object(path, EvalError, missing_ok=True)
    result = {"row": row, **report(run.benchmark, items, found)}
    if "judgement" in before and before.get("counts") == result["counts"]:  # of the same answers
        result["judgement"] = before["judgement"]
    write_json(path, result)
    return result


def score_answers(run: Run, folder: Path) -> dict[str, Any]:
    """The report on raw answers that a benchmark ships, by the same scorer; nothing is written."""
    if run.benchmark.answers is None:
        raise ConfigError(f"answers of {run.benchmark.name}: expected ovo-bench, whose result files are published")
    items, found = run.items(), run.benchmark.answers(folder)
    records = {item.id: record_of(run.benchmark, Outcome(item, found[item.id])) for item in items if item.id in found}
    return {"row": "answers", **report(run.benchmark, items, records)}


def share(items: Sequence[Item], shard: tuple[int, int]) -> list[Item]:
    """The items of this host: whole videos, dealt out in turn."""
    number, of = shard
    host = dict(zip(dict.fromkeys(item.video for item in items), itertools.cycle(range(1, of + 1)), strict=False))
    return [item for item in items if host[item.video] == number]


def _records(run: Run, model: Model, group: Sequence[Item], row: Row, done: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """A record for every item of a group that is not `done`, as soon as it is known."""
    open_items = {item.id: item for item in group if item.id not in done}
    own = " ".join(filter(None, (done[item.id] for item in itertools.takewhile(lambda item: item.id in done, group))))
    video = run.video(group[0])
    why = "nothing of the video may be seen"
    try:
        for outcome in protocols.play(model, video, list(open_items.values()), row, run.protocol, own=own):
            del open_items[outcome.item.id]
            yield record_of(run.benchmark, outcome)
    except (ConfigError, SourceError, StreamError) as error:  # a question that is too long, a video that is broken, ...
        why = str(error).replace(str(video.path), "the video")
    for item in open_items.values():
        reason = why if protocols.told(item) else "it begins before the stream does"
        yield {"id": item.id, "task": item.task, "track": item.track, "skipped": reason}


def record_of(benchmark: Benchmark, outcome: Outcome) -> dict[str, Any]:
    """One item as a line of results."""
    item = outcome.item
    record: dict[str, Any] = {"id": item.id, "task": item.task, "track": item.track, "response": outcome.response}
    if benchmark.grade is not None:
        record |= {"answer": item.answer, **dataclasses.asdict(benchmark.grade(outcome))}
    if item.kind == "proactive":
        record["at"] = outcome.at
    if outcome.said:
        record["said"] = [list(line) for line in outcome.said]
    if outcome.answer.tokens:
        record |= {"tokens": outcome.answer.tokens, "ms": round(outcome.answer.ms, 1)}
    return record
