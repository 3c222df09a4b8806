"""Compiled programs are kept by default, bounded, where they fit; and the switch switches it off."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from svlm_jax.host import compile_cache

PROGRAM = """
import jax
from svlm_jax.host.compile_cache import keep_compiled
keep_compiled()
jax.jit(lambda x: (x @ x.T).sum(0) * 2)(jax.numpy.ones((8, 8))).block_until_ready()
"""


def compiled(tmp_path, **environment):
    """The files that a process with this environment leaves in the user's cache folder."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_COMP", "JAX_PERS", "SVLM_"))}
    plain |= {"XDG_CACHE_HOME": str(tmp_path / "home"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", **environment}
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, env=plain, timeout=120)
    return sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*-cache"))


def test_programs_are_kept_by_default_in_the_users_cache(tmp_path):
    kept = compiled(tmp_path)
    assert kept and all(path.startswith(f"home/svlm-jax/compiled/{compile_cache.fitting('cpu')}/") for path in kept)
    before = {path: (tmp_path / path).stat().st_mtime_ns for path in kept}
    assert compiled(tmp_path) == kept, "the second process compiles nothing new"
    assert {path: (tmp_path / path).stat().st_mtime_ns for path in kept} == before


@pytest.mark.parametrize(("value", "there"), [("off", None), ("{}/elsewhere", "elsewhere/")])
def test_the_switch(value, there, tmp_path):
    kept = compiled(tmp_path, SVLM_COMPILE_CACHE=value.format(tmp_path))
    assert bool(kept) == bool(there) and all(path.startswith(there) for path in kept)


@pytest.fixture
def settings(monkeypatch):
    """What `keep_compiled` asks JAX for."""
    asked = {}
    monkeypatch.setattr(compile_cache.jax.config, "update", asked.__setitem__)
    for name in [name for name in os.environ if name.startswith(("JAX_COMP", "JAX_PERS", "SVLM_"))]:
        monkeypatch.delenv(name)
    return asked


def test_the_cache_is_bounded_unless_jax_was_told_otherwise(settings, monkeypatch, tmp_path):
    folder = compile_cache.keep_compiled(str(tmp_path))
    assert settings["jax_compilation_cache_dir"] == str(folder)
    assert settings["jax_compilation_cache_max_size"] == compile_cache.MOST_BYTES
    settings.clear()
    monkeypatch.setenv("JAX_COMPILATION_CACHE_MAX_SIZE", "7")
    compile_cache.keep_compiled(str(tmp_path))
    assert "jax_compilation_cache_max_size" not in settings
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/mine")
    settings.clear()
    assert compile_cache.keep_compiled() == Path("/mine") and not settings


def test_a_folder_that_cannot_be_made_does_no_harm(settings, tmp_path):
    (tmp_path / "file").touch()
    assert compile_cache.keep_compiled(str(tmp_path / "file")) is None and not settings


def test_another_processor_or_jaxlib_has_another_folder(monkeypatch):
    here = compile_cache.fitting("cpu")
    assert here == compile_cache.fitting("cpu") and compile_cache.fitting("cuda") == "cuda"
    monkeypatch.setattr(compile_cache, "cpu_features", lambda: frozenset({"sse2"}))
    other = compile_cache.fitting("cpu")
    monkeypatch.setattr(compile_cache.importlib.metadata, "version", lambda name: "99")
    assert len({here, other, compile_cache.fitting("cpu")}) == 3
