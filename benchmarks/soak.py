"""An hour of video through `svlm watch`: does anything compile again, does memory grow, does a second take longer?

    python -m benchmarks.soak [--minutes 60] [--out benchmarks/results/soak_cpu.json]

Renders a stream of that length, writes a small random checkpoint, and runs the command itself. After every second it notes
the number of compilations, the bytes of all live device arrays and the resident memory of the process. Exit status 1 when,
after two minutes of warm-up, something compiled, device bytes changed by a byte, resident memory moved by more than 2 %, or
a second of the last five minutes took more than 1.05 times one of minutes 2 to 6 (medians).
"""

import argparse
import json
import pathlib
import statistics
import sys
import tempfile
import time

import av
import jax
import numpy as np

from svlm_jax.checkpoint.random import write_random_checkpoint
from svlm_jax.cli import main as cli
from svlm_jax.host.files import write_text
from svlm_jax.host.machine import describe
from svlm_jax.streaming.session import Session

FPS, WIDTH, HEIGHT = 5, 168, 112


def render(path: pathlib.Path, seconds: int) -> None:
    """A stream of moving shapes over changing noise, so that no second looks like another."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    grain = rng.integers(0, 60, (HEIGHT, WIDTH, 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for i in range(seconds * FPS):
            x, y = WIDTH * (0.5 + 0.4 * np.sin(i / 17)), HEIGHT * (0.5 + 0.4 * np.cos(i / 23))
            disc = ((columns - x) ** 2 + (rows - y) ** 2 < 400)[..., None]
            picture = np.where(disc, np.uint8([250, i % 251, 60]), np.roll(grain, i, 1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture.astype(np.uint8), format="rgb24")))
        container.mux(stream.encode())


def resident_bytes() -> int:
    """Resident memory of this process (Linux)."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError("/proc/self/status has no VmRSS line")


class Notes:
    """What is noted after every second."""

    def __init__(self) -> None:
        self.compilations = 0
        self.rows: list[dict[str, float]] = []
        jax.monitoring.register_event_duration_secs_listener(self._event)

    def _event(self, name: str, _seconds: float, **_: object) -> None:
        self.compilations += name.endswith("backend_compile_duration")

    def watch(self) -> None:
        """Takes notes from now on. The command itself is not changed: the session is asked after each of its seconds."""
        feed, notes = Session.feed, self

        def noting(session: Session, chunk):
            begin = time.perf_counter()
            caption = feed(session, chunk)
            seconds = time.perf_counter() - begin
            notes.rows.append(
                {
                    "time": chunk.end,
                    "ms": 1e3 * seconds,
                    "compilations": notes.compilations,
                    "device_bytes": sum(x.nbytes for x in jax.live_arrays()),
                    "host_bytes": resident_bytes(),
                }
            )
            return caption

        Session.feed = noting  # type: ignore[method-assign]


def judge(rows: list[dict[str, float]]) -> dict[str, object]:
    """The four questions, answered over everything after the second minute."""
    warm = [row for row in rows if row["time"] > 120]
    early = [row["ms"] for row in rows if 120 < row["time"] <= 360]
    late = [row["ms"] for row in rows if row["time"] > rows[-1]["time"] - 300]
    host = [row["host_bytes"] for row in warm]
    ratio = statistics.median(late) / statistics.median(early)
    found = {
        "recompilations": int(warm[-1]["compilations"] - warm[0]["compilations"]),
        "device_bytes": sorted({int(row["device_bytes"]) for row in warm}),
        "host_bytes_min": min(host),
        "host_bytes_max": max(host),
        "host_mib_by_minute": [round(row["host_bytes"] / 2**20) for row in rows[59::60]],
        "ms_minutes_2_to_6": round(statistics.median(early), 3),
        "ms_last_5_minutes": round(statistics.median(late), 3),
        "ratio": round(ratio, 4),
    }
    middle = (max(host) + min(host)) / 2
    flat = max(host) - min(host) <= 0.04 * middle  # +- 2 %
    found["passed"] = not found["recompilations"] and len(found["device_bytes"]) == 1 and flat and ratio <= 1.05
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--out", type=pathlib.Path)
    arguments = parser.parse_args()
    if arguments.minutes < 12:
        parser.error("the two periods that are compared need at least 12 minutes of video")
    notes = Notes()
    with tempfile.TemporaryDirectory() as folder:
        video, model = pathlib.Path(folder) / "hour.mp4", pathlib.Path(folder) / "model"
        render(video, 60 * arguments.minutes)
        write_random_checkpoint(model, family="qwen2_5_vl", size="tiny", seed=0)
        notes.watch()
        command = ["watch", str(video), "--model", str(model), "--no-live", "--max-pixels", str(WIDTH * HEIGHT),
                   "--vtt", f"{folder}/hour.vtt", "--srt", f"{folder}/hour.srt", "--jsonl", f"{folder}/hour.jsonl"]  # fmt: skip
        begin = time.perf_counter()
        status = cli.main(command)
        wall = time.perf_counter() - begin
        lines = len((pathlib.Path(folder) / "hour.jsonl").read_text().splitlines())
    result = {
        "what": f"svlm watch on a rendered stream of {arguments.minutes} minutes, small random Qwen2.5-VL",
        "command": f"python -m benchmarks.soak --minutes {arguments.minutes}",
        "machine": describe(),
        "exit_status": status,
        "seconds_captioned": lines,
        "wall_seconds": round(wall, 1),
        **judge(notes.rows),
    }
    text = json.dumps(result, indent=1)
    sys.stderr.write(text + "\n")
    if arguments.out:
        write_text(arguments.out, text + "\n")
    return 0 if result["passed"] and status in (0, None) and lines == 60 * arguments.minutes else 1


if __name__ == "__main__":
    sys.exit(main())
