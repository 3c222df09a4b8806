"""A real server in a process of its own under load from cameras in others: in time, nothing compiled, and killed in between."""

import pytest

from tests.streaming.streams import GOLDEN

pytest.importorskip("uvicorn", reason="needs the extra serve")
pytest.importorskip("websockets")

pytestmark = pytest.mark.slow

MODEL = str(GOLDEN / "streamingvlm" / "checkpoint")
SMALL = [
    "--size",
    "84x56",
    "--window",
    "vision=4,text=4,sink=12,tail=16",
    "--max-new-tokens",
    "8",
    "--questions",
    "1",
]


def test_cameras_in_real_time():
    from benchmarks.serving import measure

    row = measure(MODEL, 2, 15, SMALL)
    assert row["streams"] == 2 and row["captions"] >= 2 * 13
    assert row["recompilations"] == 0 and row["device_bytes_growth"] == 0
    assert row["deadline_misses"] == 0 and row["dropped"] == 0
    assert row["first_word_p50_ms"] <= row["caption_p50_ms"] and row["slowest_tokens_per_s"] > 0
    assert row["server_cpu"] > 0 and row["rss_growth"] < 50e6


def test_streams_go_on_when_the_worker_is_killed_under_load():
    from benchmarks.serving_kills import measure

    found = measure(MODEL, 2, 3, SMALL)
    assert found["faults"] == []
    assert found["kills"] == 3 and found["resumed"] >= 3
    assert found["captions_checked"] == 2 * 24
    assert found["most_seconds_lost"] < 16
