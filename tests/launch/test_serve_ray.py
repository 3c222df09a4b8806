"""Two workers behind Ray Serve, one of them killed: its streams go on at the other. Skipped where Ray is not installed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch import serve_ray
from tests.streaming.streams import GOLDEN

STREAMS = 6


def test_snapshots_are_needed(capsys):
    assert serve_ray.main(["--", "--model", "embedded"]) == 1
    assert "--snapshots is missing" in capsys.readouterr().err


def replicas(driver):
    """The replicas' processes among the descendants of a process."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found = []
    for pid in parents:
        above = pid
        while above in parents and above != driver:
            above = parents[above]
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if above == driver and b"ServeReplica" in words and b"svlm" in words:
            found.append(pid)
    return found


def watch(port, name, first, chunks, within=120.0):
    """Shows a stream some seconds; returns what the server says of the session, and its captions."""
    from websockets.exceptions import WebSocketException
    from websockets.sync.client import connect

    from tests.serving.test_api import jpeg

    end = time.monotonic() + within
    while True:
        try:
            with connect(f"ws://127.0.0.1:{port}/v1/realtime", additional_headers={"x-session-id": name}) as link:
                created = json.loads(link.recv(timeout=30))
                if created["type"] == "error":
                    raise OSError(created["error"]["message"])
                texts = []
                for i in range(2 * first, 2 * (first + chunks)):
                    link.send(json.dumps({"type": "svlm.frame", "time": i / 2}))
                    link.send(jpeg(i % 200))
                    while i % 2 and len(texts) < i // 2 + 1 - first:
                        event = json.loads(link.recv(timeout=60))
                        if event["type"] == "response.done":
                            texts.append(event["response"]["output"][0]["content"][0]["text"])
                return created["session"]["svlm"], texts
        except (OSError, TimeoutError, WebSocketException):
            if time.monotonic() > end:
                raise
            time.sleep(0.5)


@pytest.mark.slow
def test_streams_of_a_killed_worker_go_on_elsewhere(tmp_path):
    pytest.importorskip("ray", reason="needs Ray: pip install 'svlm-jax[ray]'")
    from benchmarks.serving import free_port

    port = free_port()
    model = ["--model", str(GOLDEN / "streamingvlm" / "checkpoint"), "--size", "84x56"]
    small = ["--window", "vision=4,text=4,sink=12,tail=16", "--max-new-tokens", "4", "--questions", "1"]
    kept = ["--streams", str(STREAMS), "--snapshots", str(tmp_path / "streams"), "--snapshot-seconds", "0.5"]
    ray = [sys.executable, "-m", "launch.serve_ray", "--replicas", "2", "--gpus", "0", "--cpus", "1", "--port", str(port)]
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    with subprocess.Popen([*ray, "--", *model, *small, *kept], env=environment) as driver:
        try:
            names = [f"camera-{number}-0123456789abcdef" for number in range(STREAMS)]
            for name in names:
                about, texts = watch(port, name, 0, 3, within=300)
                assert about["resumed"] is None and len(texts) == 3
            time.sleep(3)  # two rounds of snapshots
            workers = replicas(driver.pid)
            assert len(workers) == 2
            os.kill(workers[0], signal.SIGKILL)
            for name in names:
                about, texts = watch(port, name, 3, 2)
                assert about["resumed"] is not None and about["position"] >= 1.0, (name, about)
                assert about["resumed"]["lost_seconds"] < 60 and len(texts) == 2
        finally:
            driver.terminate()
            driver.wait(60)
