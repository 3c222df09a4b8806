"""Load on a server: simulated cameras in processes of their own send JPEG over the WebSocket in real time.

    python -m benchmarks.serving --model embedded --streams 1,8,32 --seconds 600 --json FILE

For each number of streams a server of its own is started, as a user starts it (`svlm serve`), warmed up, and fed. A row holds

    first_word_*_ms, caption_*_ms   from sending a second's last picture to its first word, and to the end of its caption
    slowest_tokens_per_s            of the stream that decodes slowest, while it decodes
    question_first_token_ms         from a question to the first word of its answer
    refused                         cameras for which the server measured too little room
    deadline_misses, dropped        captions behind the next second's pictures; seconds that were never looked at
    recompilations, device_bytes_growth, rss_growth     from the end of the first tenth to the end
    server_cpu, cameras_cpu         processors that the server and the cameras keep busy, in the same time

Times are taken in the cameras' processes, so they hold the network, the JPEG decoder and the scheduler.
"""

import argparse
import asyncio
import io
import json
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from svlm_jax.host.machine import describe

FPS = 2
MATCHES = 4  # that are drawn; cameras show them from different seconds on
CAMERAS_A_PROCESS = 16


def pictures(seed: int, seconds: int) -> list[bytes]:
    """JPEGs of a drawn match, `FPS` a second."""
    from svlm_jax.synthetic.match import Match

    shown = []
    for i, (_, frame) in enumerate(Match(seed).video(FPS)):
        if i >= seconds * FPS:
            break
        out = io.BytesIO()
        Image.fromarray(frame).save(out, "JPEG", quality=90)
        shown.append(out.getvalue())
    return shown


def cpu_seconds(pid: int) -> float:
    """Processor time of a process so far."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def camera(port: int, shown: Sequence[bytes], offset: int, seconds: int, ask: bool, start_at: float) -> dict[str, Any]:
    """One camera: sends pictures at their times, and notes when words come back."""
    from websockets.asyncio.client import connect

    sent: dict[int, float] = {}
    found: dict[str, Any] = {
        "first": [],
        "caption": [],
        "speed": [],
        "question": [],
        "misses": 0,
        "dropped": 0,
        "chunks": 0,
        "refused": 0,
    }
    begun: dict[str, tuple[int, float]] = {}
    asked: float | None = None

    async with connect(f"ws://127.0.0.1:{port}/v1/realtime", max_size=None) as link:
        if json.loads(await link.recv())["type"] == "error":
            return found | {"refused": 1}

        async def listen() -> None:
            nonlocal asked
            async for text in link:
                event, now = json.loads(text), time.monotonic()
                if event["type"] == "response.output_text.delta":
                    name = event["response_id"]
                    if name in begun and begun[name][1] == 0.0:
                        second = begun[name][0]
                        begun[name] = second, now
                        if second in sent:
                            found["first"].append(now - sent[second])
                    elif asked is not None and name not in begun:
                        found["question"].append(now - asked)
                        asked = None
                elif event["type"] == "response.created" and event["response"]["svlm"]["kind"] == "caption":
                    begun[event["response"]["id"]] = round(event["response"]["svlm"]["start"]), 0.0
                elif event["type"] == "response.done" and event["response"]["svlm"]["kind"] == "caption":
                    about = event["response"]["svlm"]
                    begun.pop(event["response"]["id"], None)
                    second = round(about["end"]) - 1
                    found["chunks"] += 1
                    found["misses"], found["dropped"] = about["misses"], about["dropped"]
                    if second in sent:
                        found["caption"].append(now - sent[second])
                    if about["tokens"] > 2:
                        found["speed"].append(about["tokens_per_s"])

        listener = asyncio.create_task(listen())
        await asyncio.sleep(max(start_at - time.monotonic(), 0))
        start = time.monotonic()
        for i in range(seconds * FPS):
            await asyncio.sleep(max(start + i / FPS - time.monotonic(), 0))
            await link.send(json.dumps({"type": "svlm.frame", "time": i / FPS}))
            await link.send(shown[(offset + i) % len(shown)])
            if i % FPS == FPS - 1:
                sent[i // FPS] = time.monotonic()
            if ask and i and i % (20 * FPS) == 0:
                item = {"content": [{"type": "input_text", "text": "What happened?"}]}
                asked = time.monotonic()
                await link.send(json.dumps({"type": "conversation.item.create", "item": item}))
                await link.send(json.dumps({"type": "response.create", "response": {}}))
        await asyncio.sleep(3)
        listener.cancel()
    return found


def cameras(port: int, first: int, count: int, seconds: int, start_at: float, results: Any) -> None:
    """A process of cameras, each at its own part of its match and its own moment of the second."""
    shown = {seed: pictures(seed, min(seconds, 120)) for seed in {1 + i % MATCHES for i in range(first, first + count)}}
    results.put("ready")

    async def run() -> list[dict[str, Any]]:
        tasks = [
            camera(port, shown[1 + i % MATCHES], 7 * i * FPS, seconds, i == 0, start_at + (i % 10) / 10)
            for i in range(first, first + count)
        ]
        return list(await asyncio.gather(*tasks))

    results.put(asyncio.run(run()))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(model: str, streams: int, port: int, arguments: Sequence[str]) -> "subprocess.Popen[bytes]":
    """A server, as a user starts it."""
    command = [sys.executable, "-m", "svlm_jax", "serve", "--model", model, "--streams", str(streams), "--port", str(port)]
    return subprocess.Popen([*command, *arguments], stderr=subprocess.DEVNULL)


def measure(model: str, streams: int, seconds: int, arguments: Sequence[str]) -> dict[str, Any]:
    """One row: a server of its own, and cameras for it."""
    port = free_port()
    server = start(model, streams, port, arguments)
    try:
        wait_ready(server, port)
        results: Any = multiprocessing.get_context("spawn").Queue()
        start_at = time.monotonic() + 20 + streams / 4
        groups = [(first, min(CAMERAS_A_PROCESS, streams - first)) for first in range(0, streams, CAMERAS_A_PROCESS)]
        spawn = multiprocessing.get_context("spawn")
        workers = [spawn.Process(target=cameras, args=(port, *group, seconds, start_at, results)) for group in groups]
        for worker in workers:
            worker.start()
        time.sleep(max(start_at + seconds / 10 - time.monotonic(), 0))
        early, rss_early = scrape(port), rss(server.pid)
        begun, busy = time.monotonic(), [cpu_seconds(server.pid), sum(cpu_seconds(worker.pid or 0) for worker in workers)]
        time.sleep(max(start_at + seconds - time.monotonic(), 0))
        busy = [
            cpu_seconds(server.pid) - busy[0],
            sum(cpu_seconds(worker.pid or 0) for worker in workers) - busy[1],
        ]
        busy = [round(seconds_busy / (time.monotonic() - begun), 3) for seconds_busy in busy]
        found: list[dict[str, Any]] = []
        while len(found) < streams:
            item = results.get(timeout=seconds + 300)
            if isinstance(item, list):
                found += item
        late, rss_late, peak = scrape(port), rss(server.pid), rss_peak(server.pid)
        for worker in workers:
            worker.join()
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)
    memory = {"rss_growth": rss_late - rss_early, "rss_peak": peak}
    return row(streams, seconds, found, early, late) | memory | {"server_cpu": busy[0], "cameras_cpu": busy[1]}


def row(
    streams: int, seconds: int, found: list[dict[str, Any]], early: dict[str, float], late: dict[str, float]
) -> dict[str, Any]:
    def percentiles(name: str, key: str) -> dict[str, float | None]:
        values = [1e3 * value for each in found for value in each[key]]
        return {f"{name}_p{p}_ms": round(float(np.percentile(values, p)), 1) if values else None for p in (50, 95, 99)}

    speeds = [float(np.median(each["speed"])) for each in found if each["speed"]]
    questions = [1e3 * value for each in found for value in each["question"]]
    return {
        "streams": streams,
        "seconds": seconds,
        "refused": sum(each["refused"] for each in found),
        "captions": sum(each["chunks"] for each in found),
        **percentiles("first_word", "first"),
        **percentiles("caption", "caption"),
        "slowest_tokens_per_s": min(speeds) if speeds else None,
        "question_first_token_ms": round(float(np.median(questions)), 1) if questions else None,
        "deadline_misses": sum(each["misses"] for each in found),
        "dropped": sum(each["dropped"] for each in found),
        "recompilations": int(late["svlm_compilations_total"] - early["svlm_compilations_total"]),
        "device_bytes": int(late["svlm_device_memory_bytes"]),
        "device_bytes_growth": int(late["svlm_device_memory_bytes"] - early["svlm_device_memory_bytes"]),
    }


def wait_ready(server: "subprocess.Popen[bytes]", port: int, limit: float = 1800.0) -> None:
    """Until the server takes streams."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        if server.poll() is not None:
            raise SystemExit(f"the server ended with {server.returncode} before it was ready")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2):
                return
        except OSError:
            time.sleep(0.5)
    raise SystemExit("the server was not ready in time")


def scrape(port: int) -> dict[str, float]:
    """The server's figures without labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as page:
        text = page.read().decode()
    return {name: float(value) for name, value in re.findall(r"^(\w+) ([\d.e+-]+)$", text, re.M)}


def rss(pid: int) -> int:
    """Bytes of a process in memory."""
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def rss_peak(pid: int) -> int:
    """The most bytes of a process in memory so far."""
    with open(f"/proc/{pid}/status") as file:
        return 1024 * int(re.findall(r"VmHWM:\s+(\d+)", file.read())[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--streams", default=(1, 2, 4, 8), type=lambda text: tuple(map(int, text.split(","))), help="1,2,4,8")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--json", type=Path)
    parser.add_argument("rest", nargs="*", help="further arguments of svlm serve, behind --")
    arguments = parser.parse_args()
    rows = []
    for streams in arguments.streams:
        rows.append(measure(arguments.model, streams, arguments.seconds, arguments.rest))
        sys.stdout.write(json.dumps(rows[-1]) + "\n")
        sys.stdout.flush()
        if arguments.json is not None:
            command = ["python", "-m", "benchmarks.serving", *sys.argv[1:]]
            arguments.json.write_text(json.dumps({"command": command, "machine": describe(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
