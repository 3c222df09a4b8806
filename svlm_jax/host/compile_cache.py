"""Where compiled programs are kept between runs, so that only the first start on a machine has to compile them."""

import hashlib
import importlib.metadata
import os
import platform
from pathlib import Path

import jax

SWITCH = "SVLM_COMPILE_CACHE"  # environment: "off", or another folder
MOST_BYTES = 4 * 2**30  # the programs that were not used for longest leave first
LEAST_SECONDS = 0.1  # programs that compile faster than this are not worth a file


def keep_compiled(where: str | None = None) -> Path | None:
    """Lets JAX keep what it compiles in `where`, else $SVLM_COMPILE_CACHE, else the user's cache folder; "off" switches it off.

    Returns the folder, None without one. Settings that are made by JAX's own variables (JAX_COMPILATION_CACHE_DIR, ...) stay.
    A folder that cannot be written costs nothing but the time to compile.
    """
    where = where or os.environ.get(SWITCH)
    if where == "off":
        jax.config.update("jax_enable_compilation_cache", False)
        return None
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    folder = Path(where).expanduser() if where else user_cache() / "compiled"
    folder = folder / fitting(jax.default_backend())
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    if not os.access(folder, os.W_OK):
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_COMPILATION_CACHE_MAX_SIZE" not in os.environ:
        jax.config.update("jax_compilation_cache_max_size", MOST_BYTES)
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST_SECONDS)
    return folder


def user_cache() -> Path:
    """The folder of this package among the user's caches."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(home) / "svlm-jax"


def fitting(backend: str) -> str:
    """A folder's name that differs where programs of one machine must not run on another.

    JAX's own keys tell accelerators and versions apart, but not processors: a program for a CPU uses every instruction that
    the one it was compiled on had, and would die on another (home folders are often shared between machines).
    """
    if backend != "cpu":
        return backend
    about = "\n".join((platform.machine(), importlib.metadata.version("jaxlib"), *sorted(cpu_features())))
    return f"cpu-{hashlib.sha256(about.encode()).hexdigest()[:12]}"


def cpu_features() -> frozenset[str]:
    """What this processor can do, as Linux lists it; elsewhere its name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset((platform.processor(),))
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):  # x86, ARM
            return frozenset(value.split())
    return frozenset((platform.processor(),))
