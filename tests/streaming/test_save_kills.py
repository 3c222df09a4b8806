"""A process that saves a stream is killed at random: a stream that goes on is left each time."""

import random
import signal
import subprocess
import sys
import time

import pytest

from tests.streaming.streams import SETTINGS, model, run

pytestmark = pytest.mark.slow

KILLS = 20
SAVES = """
import sys
from tests.streaming.streams import SETTINGS, model, run
session = model().stream(SETTINGS)
for second in range(10_000):
    run(session, second, second + 1)
    session.save(sys.argv[1])
    print(second, flush=True)
"""


def test_twenty_kills_at_any_stage(tmp_path):
    draw = random.Random(5)
    first = model().stream(SETTINGS)
    run(first, 0, 1)
    first.save(tmp_path / "saved")
    for _ in range(KILLS):
        with subprocess.Popen([sys.executable, "-c", SAVES, tmp_path / "saved"], stdout=subprocess.PIPE, text=True) as process:
            saves = draw.randint(1, 3)
            lines = [int(process.stdout.readline()) for _ in range(saves)]
            time.sleep(draw.uniform(0, 0.15))  # a save takes about a tenth of a second
            process.send_signal(signal.SIGKILL)
            later = [int(line) for line in process.stdout if line.endswith("\n")]
        resumed = model().resume(tmp_path / "saved")
        newest = (lines + later)[-1] + 1
        assert resumed.chunks in (newest, newest + 1)
        run(resumed, resumed.chunks, resumed.chunks + 1)
