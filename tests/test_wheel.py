"""What is installed from an sdist and its wheel works from any folder: the command, its models, the training configurations."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ("svlm_jax", "pallas_kernels", "configs", "launch", "pyproject.toml", "setup.py", "requirements.txt", "README.md",
         "LICENSE", "NOTICE")  # fmt: skip

pytest.importorskip("setuptools", minversion="77", reason="builds the wheel")


def run(*command, told=False, **options):
    """What a program prints, or with `told` what it says beside that."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **options)
    assert done.returncode == 0, done.stderr
    return done.stderr if told else done.stdout


BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, f'build_{sys.argv[1]}')(sys.argv[2]))"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with what this checkout installs: from the wheel that is built from its sdist, as for those who build it anew.

    It is built from a copy: building leaves files behind.
    """
    folder = tmp_path_factory.mktemp("wheel")
    (folder / "source").mkdir()
    for part in PARTS:
        whole = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        whole(ROOT / part, folder / "source" / part)
    build = (sys.executable, "-c", BUILD)
    sdist = folder / run(*build, "sdist", str(folder), cwd=folder / "source").splitlines()[-1]
    direct = folder / run(*build, "wheel", str(folder), cwd=folder / "source").splitlines()[-1]
    names = set(zipfile.ZipFile(direct).namelist())
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"svlm_jax", "pallas_kernels"}
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (folder / "again").mkdir()
    (unpacked,) = (folder / "unpacked").iterdir()
    wheel = folder / "again" / run(*build, "wheel", str(folder / "again"), cwd=unpacked).splitlines()[-1]
    assert set(zipfile.ZipFile(wheel).namelist()) == names, "the sdist holds all that the wheel needs"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    run(*pip, "install", "--no-deps", "--target", str(folder / "site"), str(wheel))
    return folder / "site"


def python(installed, folder, *arguments, told=False):
    """Runs what is installed there, and nothing of this checkout."""
    environment = {**os.environ, "PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"}
    return run(sys.executable, *arguments, told=told, cwd=folder, env=environment)


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
    assert python(installed, tmp_path, "-m", "svlm_jax", "--version").startswith("svlm-jax 0.2")
    assert python(installed, tmp_path, str(installed / "bin" / "svlm"), "--help").startswith(
        "usage: svlm "
    )  # as pipx and uvx do
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
    command = ("-m", "svlm_jax", "train", "tiny", "loop.steps=1", "evaluation=None", "data.pipeline.batch=8")
    assert "compiled the" in python(installed, tmp_path, *command, told=True)
    assert "compiled the" not in python(installed, tmp_path, *command, told=True), "a finished run has nothing to compile for"
    assert (tmp_path / "runs" / "tiny" / "checkpoints").is_dir()
