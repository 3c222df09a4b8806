"""What the compilers for other devices need may be missing: then it is named, and nothing else is disturbed."""

import shutil
import sys

import pytest

from benchmarks.aot import target


@pytest.mark.parametrize(
    ("on", "package", "named"),
    [("h200", "jax_plugins", "CUDA plugin"), ("h200", "nvidia", "ptxas"), ("v5e", "libtpu", "libtpu")],
)
def test_a_missing_compiler_is_named(on, package, named, monkeypatch):
    """As after `make test` alone, which installs none of them: not even the packages around the modules are there."""
    monkeypatch.setattr(shutil, "which", lambda program: None)
    if package == "nvidia":
        monkeypatch.setitem(sys.modules, "jax_plugins.xla_cuda13", sys)
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    assert named in target.missing(on)
