"""Every test runs on the CPU, seen by JAX as eight devices, and without the network (loopback apart).

Kernels on a device: SVLM_TEST_PLATFORMS=cuda,cpu (or tpu,cpu) python -m pytest tests/kernels -k mosaic_gpu (or mosaic_tpu).
"""

import gc
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

# Before jax is imported anywhere: it reads these once.
os.environ["JAX_PLATFORMS"] = os.environ.get("SVLM_TEST_PLATFORMS", "cpu")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
# What one test compiled, another (in another process, too) need not compile again; gone after the run.
COMPILED = None
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    COMPILED = os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="svlm-compiled-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.5"
# Shells start background jobs deaf to Ctrl-C, and what they start inherits it; tests send it to programs.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# XLA:CPU maps hundreds of pieces of memory for every program. Linux allows a process 65,530, and it crashes beyond them.
MAPS, MOST = Path("/proc/self/maps"), 25_000
UNSEEN: set[str] = set()  # tests that had time to compile, since programs were last counted


def pytest_configure(config: pytest.Config) -> None:
    """Short tests compile more than they run: without LLVM's optimisations they take a quarter less. Slow ones keep them."""
    if config.option.markexpr == "not slow" and "xla_backend_optimization_level" not in os.environ["XLA_FLAGS"]:
        os.environ["XLA_FLAGS"] += " --xla_backend_optimization_level=0"


def pytest_unconfigure() -> None:
    if COMPILED is not None:
        shutil.rmtree(COMPILED, ignore_errors=True)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.duration > 0.1:
        UNSEEN.add(report.nodeid)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Programs of earlier tests leave when there are too many: behind a file, whose fixtures may count what is compiled."""
    if not UNSEEN or not MAPS.exists():
        return
    UNSEEN.clear()
    behind_file = nextitem is None or nextitem.path != item.path
    if MAPS.read_bytes().count(b"\n") > (MOST if behind_file else 2 * MOST):
        import jax

        jax.clear_caches()
        gc.collect()
