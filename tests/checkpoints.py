"""Small checkpoints for tests, written once a run."""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

from svlm_jax.checkpoint.random import write_random_checkpoint
from svlm_jax.config import Family


@functools.cache
def _root() -> Path:
    root = Path(tempfile.mkdtemp(prefix="svlm-checkpoints-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return root


def tiny(family: Family = "qwen2_5_vl", *, seed: int = 0) -> Path:
    """A folder with a random model of 0.4 million parameters; share it, and copy it before changing anything."""
    folder = _root() / f"{family}-{seed}"
    if not folder.exists():
        write_random_checkpoint(folder, family=family, seed=seed)
    return folder
