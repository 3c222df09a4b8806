"""What questions cost, measured in short: every part runs, and limits are limits."""

import copy
import json

import pytest

from benchmarks import recall_cost


@pytest.mark.slow
def test_every_part_is_measured_and_written(tmp_path):
    file = tmp_path / "found.json"
    recall_cost.main(["--size", "tiny", "--frames", "64", "--out", str(file)])
    found = json.loads(file.read_text())
    rows = found["first_token"]["rows"]
    assert [row["frames"] for row in rows] == [16, 64] and all(row["first_token_ms"] > 0 for row in rows)
    assert len(found["first_token"]["state_bytes"]) == 1 and found["first_token"]["frames_per_second"] > 0
    assert found["retrieval"]["ratio_first_token_ms"] < 1
    assert set(found["compression"]["clip_ms"]) == {"vsb+par", "fifo"}


GOOD = {
    "first_token": {"ratio_last_to_first": 1.05, "state_bytes": [9]},
    "retrieval": {"ratio_first_token_ms": 0.55},
    "compression": {"share_of_a_clip": 0.01},
}


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("first_token", "ratio_last_to_first", 1.2),
        ("first_token", "state_bytes", [9, 10]),
        ("retrieval", "ratio_first_token_ms", 0.6),
        ("compression", "share_of_a_clip", 0.02),
    ],
)
def test_each_limit_is_one(part, field, value):
    assert recall_cost.good(GOOD)
    found = copy.deepcopy(GOOD)
    found[part][field] = value
    assert not recall_cost.good(found)
