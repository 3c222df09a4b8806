"""Handed cases of training: the commands of their notes, with the exit codes and the sentences that they call right.

Each kind has a quicker test of its own, in `tests/launch/test_refused.py` and `tests/train/test_loop.py`.
"""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from svlm_jax.checkpoint.random import write_random_checkpoint
from tests.cases import needed

pytestmark = [needed, pytest.mark.slow]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer") / "tiny"
    write_random_checkpoint(folder)
    return folder


def start(folder: Path, tokenizer: Path, *changes: str, **how) -> subprocess.Popen[str]:
    common = ["configs/tiny.py", f"folder={folder}", f"model.tokenizer={tokenizer}", "loop.eval_every=60", "evaluation=None"]
    command = [sys.executable, "-m", "launch.train", *common, *changes]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", **how.pop("env", {})}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True, **how)


def small_files() -> None:
    """As on a disk that is full: no file may have more than 20,000 bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def test_training_disk_full(tokenizer: Path, tmp_path: Path) -> None:
    """One sentence that names the folder, and the next start goes on rightly."""
    full = start(tmp_path, tokenizer, "loop.steps=6", "loop.save_every=2", preexec_fn=small_files)
    _, said = full.communicate(timeout=400)
    complaints = [line for line in said.splitlines() if line.startswith("svlm: ")]
    assert full.returncode == 2 and "Traceback" not in said
    assert complaints == [f"svlm: checkpoints cannot be written to {tmp_path}/tiny/checkpoints: File too large."]
    again = start(tmp_path, tokenizer, "loop.steps=6", "loop.save_every=2")
    assert again.communicate(timeout=400)[1] and again.returncode == 0
    lines = (tmp_path / "tiny" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 7))


@pytest.mark.parametrize("tasks", ["4", ""])
def test_slurm_without_srun(tokenizer: Path, tmp_path: Path, tasks: str) -> None:
    job = {"SLURM_JOB_ID": "1", "SLURM_NTASKS": tasks, "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    process = start(tmp_path, tokenizer, "loop.steps=2", env=job)
    _, said = process.communicate(timeout=400)
    assert process.returncode == 2 and said.count("\n") == 1 and "srun" in said


def test_two_runs_one_folder(tokenizer: Path, tmp_path: Path) -> None:
    """Started at once: the second is refused in a sentence and exits, and the first goes on as if it were alone."""
    both = [start(tmp_path, tokenizer, "loop.steps=20", "loop.save_every=1") for _ in range(2)]
    ends = [(process.communicate(timeout=450)[1], process.returncode) for process in both]
    assert sorted(code for _, code in ends) == [0, 2]
    (said,) = (said for said, code in ends if code == 2)
    assert said == f"svlm: {tmp_path}/tiny is in use: another process writes there; expected a folder of its own.\n"
    lines = (tmp_path / "tiny" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 21))
