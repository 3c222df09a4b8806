"""What is installed from a wheel works from any folder: the command, its models, and the configurations of training."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ("svlm_jax", "pallas_kernels", "configs", "launch", "pyproject.toml", "setup.py", "requirements.txt", "README.md",
         "LICENSE", "NOTICE")  # fmt: skip

pytest.importorskip("setuptools", minversion="77", reason="builds the wheel")


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with what a wheel of this checkout installs. It is built from a copy: building leaves files behind."""
    folder = tmp_path_factory.mktemp("wheel")
    (folder / "source").mkdir()
    for part in PARTS:
        whole = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        whole(ROOT / part, folder / "source" / part)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    run(*pip, "wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", str(folder), str(folder / "source"))
    (wheel,) = folder.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"svlm_jax", "pallas_kernels"}
    run(*pip, "install", "--no-deps", "--target", str(folder / "site"), str(wheel))
    return folder / "site"


def python(installed, folder, *arguments):
    """Runs what is installed there, and nothing of this checkout."""
    environment = {**os.environ, "PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"}
    return run(sys.executable, *arguments, cwd=folder, env=environment)


PROGRAM = """
import svlm_jax, pathlib
from svlm_jax.train.config import load_config
from svlm_jax.checkpoint import hf
assert pathlib.Path(svlm_jax.__file__).is_relative_to({site!r}), svlm_jax.__file__
for name in ("tiny", "tiny.py", "configs/sft_stage1.py", "sft_stage2", "match", "facts"):
    print(load_config(name, ["loop.steps=7"]).name)
print(hf.resolve("embedded").name)
"""


def test_configurations_are_found_by_name_from_any_folder(installed, tmp_path):
    told = python(installed, tmp_path, "-c", PROGRAM.format(site=str(installed)))
    assert told.split() == ["tiny", "tiny", "sft_stage1", "sft_stage2", "match", "facts", "match"]


def test_the_commands_and_the_launchers_run(installed, tmp_path):
    assert python(installed, tmp_path, "-m", "svlm_jax", "--version").startswith("svlm-jax ")
    told = python(installed, tmp_path, "-m", "svlm_jax.launch.local", "--help")
    assert "python -m svlm_jax.launch.local" in told
    assert (installed / "svlm_jax" / "launch" / "slurm" / "sft.sbatch").is_file()


@pytest.mark.slow
def test_a_run_trains_from_any_folder(installed, tmp_path):
    python(
        installed,
        tmp_path,
        "-c",
        "from svlm_jax.checkpoint.random import write_random_checkpoint as w; w('runs/tiny-tokenizer')",
    )
    python(installed, tmp_path, "-m", "svlm_jax", "train", "tiny", "loop.steps=1", "evaluation=None", "data.pipeline.batch=8")
    assert (tmp_path / "runs" / "tiny" / "checkpoints").is_dir()
