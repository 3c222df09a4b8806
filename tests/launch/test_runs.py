"""Runs as users start them: processes that find each other on the loopback, are terminated, killed, and started again."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

from launch.train import PREEMPTED
from svlm_jax.checkpoint import orbax_io
from svlm_jax.checkpoint.hf import load
from svlm_jax.checkpoint.random import write_random_checkpoint

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
STEPS = 16
LONGEST = 900  # seconds that a run may take, on a machine with other things to do


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer") / "random"
    write_random_checkpoint(folder)
    return folder


class Runs:
    """Runs of configs/tiny.py in one folder."""

    def __init__(self, folder: Path, tokenizer: Path) -> None:
        self.folder = folder
        self.started: list[subprocess.Popen[str]] = []
        self.arguments = ["configs/tiny.py", f"folder={folder}", f"model.tokenizer={tokenizer}", f"loop.steps={STEPS}"]
        self.arguments += ["loop.save_every=3", "loop.eval_every=0", "evaluation=None"]
        # Steps of half a second: a run should not be done before a signal has reached all its processes.
        self.arguments += ["loop.accumulate=12"]

    def start(self, processes: int, devices: int, *changes: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "launch.local", "--processes", str(processes), "--cpu-devices", str(devices)]
        return self._popen([*command, "--restarts", "0", "--", *self.arguments, *changes])

    def start_alone(self, *changes: str) -> subprocess.Popen[str]:
        """One process, which can be killed without its launcher."""
        return self._popen([sys.executable, "-m", "launch.train", *self.arguments, *changes])

    def _popen(self, command: list[str]) -> subprocess.Popen[str]:
        environment = {**os.environ, "XLA_FLAGS": ""}
        # A session of its own, so that a test that fails can end the launcher and what it has started.
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, text=True, stderr=subprocess.PIPE, start_new_session=True
        )
        self.started.append(process)
        return process

    def close(self) -> None:
        """Kills what still runs."""
        for process in self.started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            assert process.stderr is not None
            process.stderr.close()

    def finish(self, *start: object) -> None:
        process = self.start(*start)  # type: ignore[arg-type]
        _, said = process.communicate(timeout=LONGEST)
        assert process.returncode == 0, said

    def losses(self) -> list[float]:
        lines = (self.folder / "tiny" / "metrics.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines if line.endswith("}")]
        assert [record["step"] for record in records] == list(range(1, len(records) + 1)), "every step once"
        return [record["loss"] for record in records]

    def wait_for(self, step: int, process: subprocess.Popen[str]) -> None:
        """Until the step is logged."""
        log = self.folder / "tiny" / "metrics.jsonl"
        self._wait(process, 0.02, lambda: log.exists() and f'"step": {step},' in log.read_text())

    def wait_for_save(self, step: int, process: subprocess.Popen[str], left: list[Path]) -> None:
        """Until the save of this step, or of a later one, is under way; `left`, of a run before, must be cleared away first."""
        self._wait(process, 0.001, lambda: not any(path.exists() for path in left))
        self._wait(process, 0.001, lambda: any(int(path.name.partition(".")[0]) >= step for path in self.torn()))

    def _wait(self, process: subprocess.Popen[str], pause: float, there: Callable[[], bool]) -> None:
        deadline = time.monotonic() + LONGEST
        while not there():
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline, "the run did not get there"
            time.sleep(pause)

    def stop(self, process: subprocess.Popen[str], *, one: bool = False) -> int:
        """SIGTERM to the launcher, or to one of what it has started; the step that the run was saved at."""
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        os.kill(int(children.read_text().split()[-1]) if one else process.pid, signal.SIGTERM)
        _, said = process.communicate(timeout=LONGEST)
        assert process.returncode == PREEMPTED, said
        done = len(self.losses())
        assert self.saved()[-1] == done < STEPS
        return done

    @property
    def checkpoints(self) -> Path:
        return self.folder / "tiny" / "checkpoints"

    def saved(self) -> list[int]:
        """Steps whose folders are complete."""
        return sorted(int(path.name) for path in self.checkpoints.glob("*") if path.name.isdecimal())

    def torn(self) -> list[Path]:
        """Folders of saves that are not complete."""
        return list(self.checkpoints.glob("*.orbax-checkpoint-tmp*"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, tokenizer: Path) -> Runs:
    """One process, from the first step to the last."""
    runs = Runs(tmp_path_factory.mktemp("alone"), tokenizer)
    with contextlib.closing(runs):
        runs.finish(1, 1)
    return runs


@pytest.fixture
def runs(tokenizer: Path, tmp_path: Path) -> Iterator[Runs]:
    with contextlib.closing(Runs(tmp_path, tokenizer)) as runs:
        yield runs


def test_processes_sigterm_and_other_meshes_make_no_difference(alone: Runs, runs: Runs) -> None:
    """2 processes -> SIGTERM to the launcher -> 1 process -> SIGTERM -> 2 processes on another mesh: the trace is the same."""
    two = runs.start(2, 1, "mesh.data=2", "mesh.fsdp=1", "loop.save_every=1")
    runs.wait_for(2, two)  # told to leave while a save is under way
    done = runs.stop(two)
    one = runs.start(1, 1)
    runs.wait_for(done + 2, one)
    runs.stop(one)
    runs.finish(2, 1, "mesh.data=1", "mesh.fsdp=2")
    np.testing.assert_allclose(runs.losses(), alone.losses(), rtol=1e-5)


def test_processes_leave_in_the_middle_of_a_long_step(runs: Runs) -> None:
    """A published step takes minutes, longer than schedulers wait: one is told, both drop the second and keep the first."""
    two = runs.start(2, 1, "loop.accumulate=200")
    runs.wait_for(1, two)
    assert runs.stop(two, one=True) == 1


def _readable(runs: Runs) -> None:
    """Every checkpoint that looks complete can be read in whole."""
    with contextlib.closing(orbax_io.ocp().training.Checkpointer(runs.checkpoints)) as reader:
        for step in runs.saved():
            found = reader.load_checkpointables(step)
            assert int(found["state"]["step"]) == step
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found["state"]))
            assert found["data"]["position"] and found["meta"]["model"]


@pytest.mark.filterwarnings("ignore:Sharding info not provided")
def test_kills_during_saves_leave_no_unreadable_checkpoint(alone: Runs, runs: Runs) -> None:
    """Killed while a save is under way, at some moment of it; SVLM_KILLS says how often (default 2, the long form is 20)."""
    rng = random.Random(0)
    kills = int(os.environ.get("SVLM_KILLS", "2"))
    torn = 0
    for number in range(kills):
        before, left = max(runs.saved(), default=0), runs.torn()
        process = runs.start_alone("loop.save_every=1")
        runs.wait_for_save(max(before + 1, 1 + number * (STEPS - 2) // kills), process, left)
        time.sleep(rng.choice([0, rng.uniform(0, 0.05)]))
        process.kill()
        process.communicate()
        torn += bool(runs.torn())
        # At most the interval that was being saved is lost.
        assert max(runs.saved(), default=0) >= max(before, len(runs.losses()) - 2)
        _readable(runs)
    assert torn >= kills / 4, f"only {torn} of {kills} kills have torn a save"
    runs.finish(1, 1)
    assert not runs.torn()
    np.testing.assert_allclose(runs.losses(), alone.losses(), rtol=1e-5)


def test_export_is_a_checkpoint(alone: Runs, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "launch.train", *alone.arguments, "--export", str(tmp_path / "model")]
    found = subprocess.run(command, cwd=ROOT, env={**os.environ, "XLA_FLAGS": ""}, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert f"step {STEPS} of tiny" in found.stderr
    loaded = load(tmp_path / "model")
    assert loaded.config.text.num_layers == 1
    assert loaded.tokenizer.encode("goal")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (["optimizer.learning_rat=1"], "OptimizerConfig has no learning_rat; did you mean learning_rate?"),
        (["mesh.fsdp=3"], "the mesh (data=1, fsdp=3, tensor=1) needs 3 devices, but there is 1 device."),
    ],
)
def test_user_errors_are_one_sentence(tokenizer: Path, tmp_path: Path, changes: list[str], sentence: str) -> None:
    command = [sys.executable, "-m", "launch.train", *Runs(tmp_path, tokenizer).arguments, *changes]
    found = subprocess.run(command, cwd=ROOT, env={**os.environ, "XLA_FLAGS": ""}, capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert sentence in found.stderr
    assert "Traceback" not in found.stderr
