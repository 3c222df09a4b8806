"""Several training processes on this machine, started again when they die:

    python -m launch.local --processes 8 --one-device-each -- configs/sft_stage1.py
    python -m launch.local --processes 2 --cpu-devices 2 -- configs/tiny.py          (two processes of two CPU devices each)

On several machines, the same command runs on each, with --nodes, --node and the --coordinator that they share. SIGTERM is
handed on (a Ctrl-C as well): the run saves, and this program ends with 42 as its processes do.
"""

import argparse
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from types import FrameType

from svlm_jax.errors import SvlmError
from svlm_jax.host.retry import Backoff
from svlm_jax.host.standard_streams import say

from . import flags
from .cluster import COORDINATOR, LOCAL_DEVICES, PROCESS, PROCESSES
from .train import PREEMPTED

GRACE = 60.0  # seconds that the others get when one process has died
LONGEST_PAUSE = 300.0


@dataclasses.dataclass
class Group:
    """The processes of this machine, as one."""

    commands: list[list[str]]
    environments: list[dict[str, str]]
    terminated: bool = False
    processes: list[subprocess.Popen[bytes]] = dataclasses.field(default_factory=list)

    def run(self) -> int:
        """Until all have ended: 0 if all did well, 42 if all were preempted, else the first other code."""
        self.processes = [
            subprocess.Popen(command, env=environment)
            for command, environment in zip(self.commands, self.environments, strict=True)
        ]
        if self.terminated:
            self.terminate()
        deadline = None
        while any(process.poll() is None for process in self.processes):
            if deadline is None and any(process.poll() not in (None, 0, PREEMPTED) for process in self.processes):
                deadline = time.monotonic() + GRACE
                self._signal(signal.SIGTERM)
            if deadline is not None and time.monotonic() > deadline:
                self._signal(signal.SIGKILL)
            time.sleep(0.05)
        codes = [process.returncode for process in self.processes]
        if self.terminated:
            # A SIGTERM that comes before the first step ends a process, which then has nothing to save.
            codes = [PREEMPTED if code == -signal.SIGTERM else code for code in codes]
        return next((code for code in codes if code not in (0, PREEMPTED)), max(codes))

    def terminate(self) -> None:
        """Hands a SIGTERM on."""
        self.terminated = True
        self._signal(signal.SIGTERM)

    def _signal(self, number: int) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(number)


def supervise(group: Group, restarts: int, say: Callable[[str], None], *, pause: float = 5.0) -> int:
    """Runs the group again after failures, at most `restarts` times and ever more slowly; returns the last exit code."""
    for attempt in range(restarts + 1):
        code = group.run()
        # 2: something given does not fit, and would not fit the next time.
        if code in (0, 2) or group.terminated or attempt == restarts:
            return code
        wait = 0.0 if code == PREEMPTED else Backoff(pause, LONGEST_PAUSE, jitter=0).delay(attempt + 1)
        say(f"the run ended with {code}; restart {attempt + 1} of {restarts} in {wait:.0f} s")
        again = time.monotonic() + wait
        while time.monotonic() < again and not group.terminated:
            time.sleep(min(wait, 0.05))
        if group.terminated:
            return code
    return code


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environments(arguments: argparse.Namespace) -> list[dict[str, str]]:
    """The environment of each process."""
    coordinator = arguments.coordinator or f"127.0.0.1:{free_port()}"
    common = dict(os.environ)
    if arguments.gpu != "none":
        more, _ = flags.environment(arguments.gpu)
        common |= more
    if arguments.cpu_devices:
        count = f"--xla_force_host_platform_device_count={arguments.cpu_devices}"
        common |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"{common.get('XLA_FLAGS', '')} {count}".strip()}
    result = []
    for local in range(arguments.processes):
        own = {
            COORDINATOR: coordinator,
            PROCESSES: str(arguments.processes * arguments.nodes),
            PROCESS: str(arguments.node * arguments.processes + local),
        }
        if arguments.one_device_each:
            own[LOCAL_DEVICES] = str(local)
        result.append(common | own)
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Starts and supervises; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}.local", description="Train with several processes on this machine."
    )
    parser.add_argument("--processes", type=int, default=1, help="processes on this machine (default 1)")
    parser.add_argument("--one-device-each", action="store_true", help="process i sees device i only: one process per GPU")
    parser.add_argument("--cpu-devices", type=int, default=0, help="train on the CPU, each process with so many devices")
    parser.add_argument("--gpu", default="none", help="XLA flags for this GPU: " + ", ".join(flags.SETS))
    parser.add_argument("--nodes", type=int, default=1, help="machines that run this command (default 1)")
    parser.add_argument("--node", type=int, default=0, help="which of them this is, from 0")
    parser.add_argument("--coordinator", help="host:port of process 0, the same on all machines")
    parser.add_argument("--restarts", type=int, default=3, help="how often a run that dies is started again (default 3)")
    parser.add_argument("arguments", nargs="+", help="of launch.train, behind --")
    arguments = parser.parse_args(argv)
    if arguments.nodes > 1 and not arguments.coordinator:
        say("svlm: several machines need a --coordinator that all of them reach.\n")
        return 2
    command = [sys.executable, "-m", f"{__package__}.train", *arguments.arguments]
    try:
        group = Group([command] * arguments.processes, environments(arguments))
    except SvlmError as error:
        say(f"svlm: {error}\n")
        return 2

    def hand_on(_number: int, _frame: FrameType | None) -> None:
        group.terminate()

    signal.signal(signal.SIGTERM, hand_on)
    signal.signal(signal.SIGINT, hand_on)  # a terminal sends it to the processes too; they save either way
    return supervise(group, arguments.restarts, lambda line: say(f"{line}\n"))


if __name__ == "__main__":
    sys.exit(main())
