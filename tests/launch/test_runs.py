"""Runs as users start them: processes that find each other on the loopback, are terminated, killed, and started again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from launch.train import PREEMPTED
from svlm_jax.checkpoint.hf import load
from svlm_jax.checkpoint.random import write_random_checkpoint

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
STEPS = 12


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer") / "random"
    write_random_checkpoint(folder)
    return folder


class Runs:
    """Runs of configs/tiny.py in one folder."""

    def __init__(self, folder: Path, tokenizer: Path) -> None:
        self.folder = folder
        self.arguments = ["configs/tiny.py", f"folder={folder}", f"model.tokenizer={tokenizer}", f"loop.steps={STEPS}"]
        self.arguments += ["loop.save_every=3", "loop.eval_every=0", "evaluation=None"]

    def start(self, processes: int, devices: int, *changes: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "launch.local", "--processes", str(processes), "--cpu-devices", str(devices)]
        command += ["--restarts", "0", "--", *self.arguments, *changes]
        environment = {**os.environ, "XLA_FLAGS": ""}
        return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, stderr=subprocess.PIPE)

    def finish(self, *start: object) -> None:
        process = self.start(*start)  # type: ignore[arg-type]
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said

    def losses(self) -> list[float]:
        lines = (self.folder / "tiny" / "metrics.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines if line.endswith("}")]
        assert [record["step"] for record in records] == list(range(1, len(records) + 1)), "every step once"
        return [record["loss"] for record in records]

    def wait_for(self, step: int, process: subprocess.Popen[str]) -> None:
        log = self.folder / "tiny" / "metrics.jsonl"
        deadline = time.monotonic() + 240
        while not log.exists() or f'"step": {step},' not in log.read_text():
            assert process.poll() is None and time.monotonic() < deadline, "the run did not get there"
            time.sleep(0.02)

    def saved(self) -> list[int]:
        return sorted(int(path.name) for path in (self.folder / "tiny" / "checkpoints").iterdir() if path.name.isdecimal())


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, tokenizer: Path) -> Runs:
    """One process, from the first step to the last."""
    runs = Runs(tmp_path_factory.mktemp("alone"), tokenizer)
    runs.finish(1, 1)
    return runs


def test_processes_sigterm_and_other_meshes_make_no_difference(alone: Runs, tokenizer: Path, tmp_path: Path) -> None:
    """2 processes -> SIGTERM to the launcher -> 1 process on another mesh -> its trace is that of the uninterrupted run."""
    runs = Runs(tmp_path, tokenizer)
    first = runs.start(2, 1, "mesh.data=2", "mesh.fsdp=1")
    runs.wait_for(2, first)
    first.send_signal(signal.SIGTERM)
    _, said = first.communicate(timeout=120)
    assert first.returncode == PREEMPTED, said
    done = len(runs.losses())
    assert 2 <= done < STEPS
    assert runs.saved()[-1] == done
    runs.finish(1, 2, "mesh.data=1", "mesh.fsdp=2")
    np.testing.assert_allclose(runs.losses(), alone.losses(), rtol=1e-5)


def test_killed_process_loses_one_interval(alone: Runs, tokenizer: Path, tmp_path: Path) -> None:
    """Killed at a step and in the middle of whatever it saves then; SVLM_KILLS says how often (default 1)."""
    runs = Runs(tmp_path, tokenizer)
    kills = int(os.environ.get("SVLM_KILLS", "1"))
    for step in sorted(4 + number * (STEPS - 5) // kills for number in range(kills)):
        process = subprocess.Popen(
            [sys.executable, "-m", "launch.train", *runs.arguments],
            cwd=ROOT,
            env={**os.environ, "XLA_FLAGS": ""},
            text=True,
            stderr=subprocess.PIPE,
        )
        runs.wait_for(step, process)
        process.kill()
        process.communicate()
        assert runs.saved() and runs.saved()[-1] >= step - 4
    runs.finish(1, 1)
    np.testing.assert_allclose(runs.losses(), alone.losses(), rtol=1e-6)


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
