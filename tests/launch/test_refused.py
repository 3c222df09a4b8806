"""Starts that are refused in a sentence: exit code 2, and nothing hangs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from svlm_jax.checkpoint.random import write_random_checkpoint
from svlm_jax.host.folders import alone

ROOT = Path(__file__).parents[2]


def start(folder: Path, **environment: str) -> tuple[int, str]:
    tokenizer = folder / "tokenizer"
    if not tokenizer.exists():
        write_random_checkpoint(tokenizer)
    changes = [f"folder={folder}", f"model.tokenizer={tokenizer}", "loop.steps=2"]
    command = [sys.executable, "-m", "launch.train", "configs/tiny.py", *changes]
    variables = {**os.environ, "JAX_PLATFORMS": "cpu", **environment}
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT, env=variables, timeout=120)
    return done.returncode, done.stderr


def test_a_second_run_in_one_folder(tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    with alone(tmp_path / "tiny"):
        code, said = start(tmp_path)
    assert (
        code == 2 and said == f"svlm: {tmp_path}/tiny is in use: another process writes there; expected a folder of its own.\n"
    )


@pytest.mark.parametrize("tasks", ["4", ""])
def test_slurm_without_srun(tmp_path: Path, tasks: str) -> None:
    code, said = start(tmp_path, SLURM_JOB_ID="1", SLURM_NTASKS=tasks, SLURM_PROCID="0", SLURM_LOCALID="0")
    assert code == 2 and said.startswith("svlm: ") and "SLURM_NTASKS" in said and said.count("\n") == 1
