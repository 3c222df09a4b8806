"""Readers of what this package has written itself, and somebody or a failing disk has changed since."""

import dataclasses
import functools
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp

from svlm_jax.cache import policies
from svlm_jax.cache.window import WindowConfig
from svlm_jax.checkpoint import orbax_io
from svlm_jax.checkpoint.random import random_config
from svlm_jax.engine.sampling import Sampling
from svlm_jax.errors import CheckpointError
from svlm_jax.eval.benchmarks import BENCHMARKS
from svlm_jax.eval.items import Item
from svlm_jax.eval.judge import Judge
from svlm_jax.eval.records import Records, stored
from svlm_jax.eval.report import report
from svlm_jax.eval.results import Rows
from svlm_jax.host.chat_client import Endpoint
from svlm_jax.host.schema import Number, Object
from svlm_jax.models import registry
from svlm_jax.output import JsonLines, SubRip, WebVtt
from svlm_jax.serving.snapshots import LAYOUT, Snapshots
from svlm_jax.serving.stream import StreamOptions
from svlm_jax.streaming.qa_session import QASettings
from svlm_jax.streaming.saved import COMMENTARY, FORMAT, QUESTIONS, STREAM, find, read_about, read_saved
from svlm_jax.streaming.settings import StreamSettings, sampling_from_json
from svlm_jax.train.metrics import JsonLines as Metrics
from tests.fuzz.reader import Reader, encoded, lines
from tests.output.sink_helpers import answer, caption

MODEL = json.loads(json.dumps(registry.config_to_hf(random_config("qwen2_5_vl"))))
ABOUT = {"format": FORMAT, "model": MODEL, "dtype": "float32", "sampling": dataclasses.asdict(Sampling(suppress=(1, 2)))}


def commentary_seeds() -> list[bytes]:
    settings = StreamSettings(window=WindowConfig(sink=None, tail=None), sampling=Sampling(), duration=9.0)
    own = {"settings": settings.to_json(), "clip_shape": [2, 3, 56, 84], "chunks": 3, "position": 3.0}
    return encoded({**ABOUT, "kind": COMMENTARY, **own})


def question_seeds() -> list[bytes]:
    settings = QASettings()
    fields = {**dataclasses.asdict(settings), "memory": policies.to_json(settings.memory)}
    own = {"settings": fields, "picture": [3, 56, 84], "frames": 3, "position": 3.0, "pending": [2.5]}
    return encoded({**ABOUT, "kind": QUESTIONS, **own})


def read_questions(folder: Path) -> None:
    about = read_about(folder / STREAM, MODEL, "float32", "it", QUESTIONS)
    QASettings.from_json(about.get("settings", Object()), about.where)
    sampling_from_json(about.get("sampling", Object()), about.where)
    about.get("position", Number(least=0))


def version(folder: Path) -> None:
    (folder / "version-12345678").mkdir()
    (folder / "version-12345678" / STREAM).write_bytes(commentary_seeds()[0])


PARTS = {  # files that Orbax writes
    "metadata": "state/_METADATA",
    "checkpoint metadata": "_CHECKPOINT_METADATA",
    "shards": "state/_sharding",
    "manifest": "state/manifest.ocdbt",
    "arrays": "state/d/*",
}


@functools.cache
def arrays() -> dict[str, jax.Array]:
    """Not made on import: processes are forked from one that has imported this, and must have no threads of JAX."""
    return {"a": jnp.arange(12.0).reshape(3, 4), "b": jnp.ones((5,), jnp.bfloat16), "n": jnp.zeros((), jnp.int32)}


@functools.cache
def saved_state() -> Path:
    folder = Path(tempfile.mkdtemp()) / "state"
    orbax_io.save(folder, arrays())
    return folder


def state(part: str) -> Reader:
    """Arrays of a saved stream, of whose files one is damaged."""

    def like(array: jax.Array) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=array.sharding)

    def read(folder: Path) -> None:
        (path,) = (folder / "state").glob(PARTS[part])
        shutil.copy(folder / "damaged", path)
        orbax_io.load(folder / "state", jax.tree.map(like, arrays()))

    return Reader(
        "damaged",
        lambda: [path.read_bytes() for path in saved_state().glob(PARTS[part])],
        read,
        lambda folder: shutil.copytree(saved_state(), folder / "state"),
    )


def snapshot_seeds() -> list[bytes]:
    options = StreamOptions("system", None, WindowConfig(), Sampling())
    about = {"options": dataclasses.asdict(options), "position": 3.0, "chunks": 3, "saved_at": 1.7e9}
    return encoded({"format": 1, "fingerprint": "f", **about})


def read_snapshot(folder: Path) -> None:
    """A snapshot that cannot be read is one that is not there."""
    snapshots = Snapshots(folder / "root", like=arrays, fingerprint="f")
    place = snapshots._folder("id") / "version-12345678"
    place.mkdir(parents=True, exist_ok=True)
    (place.parent / "CURRENT").write_text(place.name)
    shutil.copy(folder / "a.json", place / LAYOUT)
    with mock.patch.object(orbax_io, "load", return_value=arrays()):
        if snapshots.read("id") is None:
            raise CheckpointError("it is not there.")


def continued(kind: Any, name: str) -> Reader:
    """A file of captions that a resumed stream goes on with."""

    def write(path: Path) -> None:
        with kind(path) as sink:
            for second in range(3):
                sink.write(caption(float(second), f"word {second}"))
            sink.answer(answer(3.0))

    def seeds() -> list[bytes]:
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder) / name)
            return [(Path(folder) / name).read_bytes()]

    def read(folder: Path) -> None:
        with kind(folder / name, append=True) as sink:
            sink.write(caption(2.0, "again"))

    return Reader(name, seeds, read)


def read_metrics(folder: Path) -> None:
    Metrics(folder / "metrics.jsonl", first=3).write(3, {"loss": 1.0})


def read_records(folder: Path) -> None:
    report(BENCHMARKS["ovo-bench"], [Item("a", "v.mp4", "", 1.0, task="EPM", track="backward")], stored(folder))


RECORD = {"id": "a", "response": "x", "official": 1.0, "strict": 0.5, "parsed": True, "said": [[0, 1, "x"]], "tokens": 3}
OURS: dict[str, Reader] = {
    "session.json": Reader(STREAM, commentary_seeds, lambda folder: read_saved(folder / STREAM, MODEL, "float32", "it")),
    "session.json: questions": Reader(STREAM, question_seeds, read_questions),
    "session: version": Reader("CURRENT", lambda: encoded("version-12345678\n"), find, version),
    **{f"session: {part}": state(part) for part in PARTS},
    "snapshot": Reader("a.json", snapshot_seeds, read_snapshot),
    "continued: vtt": continued(WebVtt, "a.vtt"),
    "continued: srt": continued(SubRip, "a.srt"),
    "continued: jsonl": continued(JsonLines, "a.jsonl"),
    "metrics": Reader("metrics.jsonl", lambda: [lines(*({"step": i, "loss": 1.5} for i in (1, 2, 3)))], read_metrics),
    "records": Reader("items.jsonl", lambda: [lines({**RECORD, "ms": 1.5}, {"id": "b", "skipped": "y"})], read_records),
    "manifest": Reader(
        "manifest.json",
        lambda: encoded({"model": "m", "date": "2026-11-28", "machine": {"cores": 2}, "continued": [{"date": "x"}]}),
        lambda folder: Records(folder, {"model": "m"}),
    ),
    "measurements": Reader(
        "rows.json",
        lambda: encoded({"settings": {"a": 1}, "runs": [{"date": "x"}], "rows": {"r": {"ms": 1.0}}}),
        lambda folder: Rows(folder / "rows.json", {"a": 1}, {"date": "y"}).add("s", {"ms": 2.0}),
    ),
    "verdicts": Reader(
        "verdicts.jsonl",
        lambda: [lines(*({"key": key, "judge": "m", "answer": "A", "date": "2026-11-28"} for key in "ab"))],
        lambda folder: Judge(Endpoint("http://localhost:1/v1", "m"), folder / "verdicts.jsonl"),
    ),
}
