"""What questions cost, measured in short: every part runs, and limits are limits."""

import json

import pytest

from benchmarks import recall_cost


@pytest.mark.slow
def test_every_part_is_measured_and_written(tmp_path, monkeypatch):
    monkeypatch.setattr(recall_cost, "RUNS", 1)
    file = tmp_path / "found.json"
    recall_cost.main(["--size", "tiny", "--frames", "64", "--out", str(file)])
    found = json.loads(file.read_text())
    rows = found["first_token"]["rows"]
    assert [row["frames"] for row in rows] == [16, 64] and all(row["first_token_ms"] > 0 for row in rows)
    assert rows[0]["state_bytes"] == rows[1]["state_bytes"] and found["first_token"]["frames_per_second"] > 0
    assert found["retrieval"]["ratio_first_token_ms"] < 1
    assert set(found["compression"]["clip_ms"]) == {"vsb+par", "fifo"}


def result(ratio=1.05, state=9, read=0.55, share=0.01):
    rows = [{"ratio_to_16_frames": 1.0, "state_bytes": 9}, {"ratio_to_16_frames": ratio, "state_bytes": state}]
    return {
        "first_token": {"rows": rows},
        "retrieval": {"ratio_first_token_ms": read},
        "compression": {"share_of_a_clip": share},
    }


@pytest.mark.parametrize("bad", [{"ratio": 1.2}, {"state": 10}, {"read": 0.6}, {"share": 0.02}])
def test_each_limit_is_one(bad):
    assert recall_cost.good(result()) and not recall_cost.good(result(**bad))
