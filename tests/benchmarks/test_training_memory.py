"""The table of memory, for a model so small that it compiles in seconds."""

import dataclasses
import json
from pathlib import Path

import pytest

from benchmarks import training_memory
from svlm_jax.data.chunks import Bucket
from svlm_jax.train.config import load_config
from tests.train import tiny

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_every_number_of_tokens_is_a_row_of_a_table_that_grows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = load_config(ROOT / "configs" / "tiny.py")
    buckets = Bucket(64, 1, (56, 56)), Bucket(256, 1, (56, 56)), Bucket(64, 1, (28, 56))
    pipeline = dataclasses.replace(config.data.pipeline, buckets=buckets)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, pipeline=pipeline))
    rows = training_memory.measure(config, tiny.config(layers=1), 2)
    assert [(row["tokens"], row["size"]) for row in rows] == [(64, [56, 56]), (256, [56, 56])]
    assert all(row["state"] + row["batch"] + row["working"] == row["total"] for row in rows)
    assert rows[0]["state"] == rows[1]["state"] and rows[0]["working"] < rows[1]["working"]
    path = tmp_path / "memory.json"
    for model in ("small", "smaller"):
        training_memory.record(path, model, {"devices": 2, "shapes": rows})
    found = json.loads(path.read_text())["bytes_on_each_device"]
    assert list(found) == ["small", "smaller"] and found["small"]["shapes"] == rows
    training_memory.show(found)
    assert "256" in capsys.readouterr().out
