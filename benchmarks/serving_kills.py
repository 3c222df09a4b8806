"""A worker that is killed under load, again and again: every stream goes on from its snapshot, and none mixes with another.

    python -m benchmarks.serving_kills --model embedded --streams 4 --kills 20

Each client shows a drawn match of its own, second after second. First all of them watch without a fault, as fast as their
captions come, which says what each second's caption must be. Then they watch again, at most twice as fast as time, while the
worker is killed (SIGKILL) at random moments and started anew: each client comes back with its session id, goes on at the second
where its snapshot stands, and must be told, for every second, the caption that it was told before.
"""

import argparse
import asyncio
import contextlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from benchmarks.serving import FPS, free_port, pictures, start, wait_ready

SNAPSHOT_SECONDS = 1.0
PACE = 0.5  # s that a second of video takes at least while the worker is killed
PATIENCE = 120.0  # s that a client tries to come back


class Client:
    """One camera and what it has been told.

    Attributes:
      captions: text by the second at which it starts. expected: what it was told when nothing happened to the worker.
      resumed: how often it came back. lost: the most seconds that it had to show again.
      faults: captions that differ from `expected`, and whatever else went wrong, in words.
    """

    def __init__(self, number: int, port: int, seconds: int) -> None:
        self.number, self.port, self.seconds = number, port, seconds
        self.shown = pictures(number + 1, seconds)
        self.captions: dict[int, str] = {}
        self.expected: dict[int, str] = {}
        self.resumed, self.lost = 0, 0
        self.faults: list[str] = []

    async def watch(self) -> None:
        """Shows the whole match, whatever happens to the worker."""
        self.captions = {}
        session, second, gave_up = "", 0, time.monotonic() + PATIENCE
        while second < self.seconds:
            try:
                address = f"ws://127.0.0.1:{self.port}/v1/realtime" + (f"?session_id={session}" if session else "")
                async with connect(address) as link:
                    session, position = await self._join(link, again=bool(session))
                    self.lost, second = max(self.lost, second - position), position
                    while session and second < self.seconds:
                        began = time.monotonic()
                        await self._show(link, second)
                        second += 1
                        if self.expected:
                            await asyncio.sleep(began + PACE - time.monotonic())
                        gave_up = time.monotonic() + PATIENCE
            except (OSError, WebSocketException):
                if time.monotonic() > gave_up:
                    self.faults.append(f"stream {self.number} never came back")
                    return
                await asyncio.sleep(0.2)

    async def _join(self, link: ClientConnection, *, again: bool) -> tuple[str, int]:
        """The session's id and the second at which it stands; no id when the worker was killed before its first snapshot."""
        event = json.loads(await link.recv())
        if event["type"] == "error":
            if event["error"]["code"] != "not_found":
                raise OSError(event["error"]["message"])
            return "", 0
        about, name = event["session"], f"You watch camera {self.number}."
        if not again:
            await link.send(json.dumps({"type": "session.update", "session": {"instructions": name}}))
            return about["id"], 0
        self.resumed += 1
        if about["instructions"] != name:
            self.faults.append(f"stream {self.number} came back as {about['instructions']!r}")
        return about["id"], round(about["svlm"]["position"])

    async def _show(self, link: ClientConnection, second: int) -> None:
        """Shows one second and waits for its caption."""
        for i in range(FPS):
            await link.send(json.dumps({"type": "svlm.frame", "time": second + i / FPS}))
            await link.send(self.shown[second * FPS + i])
        async for text in link:
            event = json.loads(text)
            if event["type"] == "error":
                raise OSError(event["error"]["message"])
            if event["type"] == "response.done":
                self._told(event["response"])
                return

    def _told(self, response: dict[str, Any]) -> None:
        second, text = round(response["svlm"]["start"]), response["output"][0]["content"][0]["text"]
        self.captions[second] = text
        if self.expected and self.expected[second] != text:
            self.faults.append(f"stream {self.number}, second {second}: {text!r}, expected {self.expected[second]!r}")


class Worker:
    """`svlm serve` on one port and one folder of snapshots, which can be killed."""

    def __init__(self, model: str, streams: int, folder: Path, arguments: Sequence[str]) -> None:
        self.port = free_port()
        own = ("--snapshots", str(folder), "--snapshot-seconds", str(SNAPSHOT_SECONDS))
        self._start = lambda: start(model, streams, self.port, [*arguments, *own])
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = self._start()
        wait_ready(self.process, self.port)

    def end(self, how: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(how)
        self.process.wait(60)


@contextlib.contextmanager
def running(worker: Worker) -> Iterator[Worker]:
    worker.start()
    try:
        yield worker
    finally:
        worker.end(signal.SIGKILL)


async def kill(worker: Worker, kills: int, wait: tuple[float, float], watching: Sequence["asyncio.Task[None]"]) -> int:
    """Kills the worker under load; returns how often."""
    chance = random.Random(0)
    for done in range(kills):
        await asyncio.sleep(chance.uniform(*wait))
        if all(task.done() for task in watching):
            return done
        await asyncio.to_thread(worker.end, signal.SIGKILL)
        await asyncio.to_thread(worker.start)
    return kills


def measure(model: str, streams: int, kills: int, arguments: Sequence[str] = (), *, wait: tuple[float, float] = (2, 5)) -> Any:
    """What happened: kills, how often clients came back, the most seconds that one lost, and every fault in words."""

    async def all_of(clients: Sequence[Client], worker: Worker, kills: int) -> int:
        watching = [asyncio.create_task(client.watch()) for client in clients]
        killed = await kill(worker, kills, wait, watching)
        await asyncio.gather(*watching)
        return killed

    with tempfile.TemporaryDirectory() as folder, running(Worker(model, streams, Path(folder), arguments)) as worker:
        seconds = max(16, 8 * kills)
        clients = [Client(number, worker.port, seconds) for number in range(streams)]
        asyncio.run(all_of(clients, worker, 0))
        for client in clients:
            client.expected = dict(client.captions)
        worker.end(signal.SIGKILL)  # its streams are not those of the second pass
        worker.start()
        killed = 0
        while killed < kills:
            killed += asyncio.run(all_of(clients, worker, kills - killed))
            worker.end(signal.SIGKILL)  # so that the next pass finds free lanes
            worker.start()
    return {
        "streams": streams,
        "kills": killed,
        "resumed": sum(client.resumed for client in clients),
        "most_seconds_lost": max(client.lost for client in clients),
        "captions_checked": sum(len(client.captions) for client in clients),
        "faults": [fault for client in clients for fault in client.faults],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("rest", nargs="*", help="further arguments of svlm serve, behind --")
    arguments = parser.parse_args()
    found = measure(arguments.model, arguments.streams, arguments.kills, arguments.rest)
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    raise SystemExit(bool(found["faults"]))


if __name__ == "__main__":
    main()
