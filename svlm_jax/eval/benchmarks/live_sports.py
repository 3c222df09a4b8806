"""LiveSports-3K-CC (arXiv 2504.16030): commentary of short sports events, beside another model's, by a judge's preference."""

from pathlib import Path

from svlm_jax.errors import EvalError
from svlm_jax.eval import files
from svlm_jax.eval.benchmark import COMMENTARY_ROWS, Benchmark
from svlm_jax.eval.items import Item
from svlm_jax.eval.protocols import Protocol

QUERY = "You are an expert live commentator. Commentate, sentence by sentence, on this video as it runs. Its title: {}"


def read(folder: Path) -> list[Item]:
    """The events of a folder with the published table as JSON, JSON lines or parquet."""
    path = files.find(folder, "*LiveSports*CC*.json*", "*LiveSports*CC*.parquet", "*/test*.parquet", "*.jsonl", "*.json")
    items = []
    for entry in files.entries(path):
        begin, end = entry.number("begin"), entry.number("end")
        if not 0 <= begin < end:
            raise EvalError(f"{entry.where}: the event from {begin:g} to {end:g} s is empty: expected 0 <= begin < end.")
        title = entry.text("event_title") if "event_title" in entry else entry.text("video_title")
        event = f"{entry.text('video_id')}_{entry.text('event_id')}"
        items.append(
            Item(
                event,
                entry.text("video"),
                QUERY.format(title),
                end,
                start=begin,
                kind="commentary",
                answer=entry.text("event_asr_text"),
                task=entry.text("class", "events"),
                previous=entry.text("preasr_text", ""),
                title=title,
                event=event,
            )
        )
    return items


BENCHMARK = Benchmark(
    "livesports-cc",
    "LiveSports-3K-CC",
    read,
    protocol=Protocol(max_new_tokens=256),
    rows=COMMENTARY_ROWS,
    judging="pair",
)
