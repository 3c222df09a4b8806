"""XLA's flags for GPUs are set where they are known and wanted, and nowhere else."""

import importlib.util
import os
from importlib import metadata

import pytest

from svlm_jax.host import xla_flags

FLAG = "--xla_gpu_experimental_force_split_k"


@pytest.mark.parametrize(
    ("plugin", "version", "given", "expected"),
    [
        (True, "0.12.0.1", "", f"{FLAG}=1"),
        (True, "0.12.0.1", "--xla_dump_to=x", f"--xla_dump_to=x {FLAG}=1"),
        (True, "0.12.0.1", f"{FLAG}=4", f"{FLAG}=4"),
        (True, "0.10.2", "", ""),
        (False, "0.12.0.1", "", ""),
    ],
)
def test_flags(monkeypatch, plugin, version, given, expected):
    monkeypatch.setenv("XLA_FLAGS", given)
    monkeypatch.setattr(metadata, "version", lambda name: version)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if plugin else None)
    xla_flags.set_gpu_flags()
    assert os.environ["XLA_FLAGS"] == expected
