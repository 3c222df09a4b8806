"""Compiles every Pallas kernel at its real shapes for an accelerator, on a machine without one.

    python -m benchmarks.aot.kernels --target h200 | v5e | v6e   [words that the rows must contain]

One row a kernel, implementation and shape: compiled or not, seconds, and for a GPU the registers of a thread and the bytes it
spills. Exit status 1 when one does not compile, spills, or cannot be compiled for here. Without cuDNN: jax asks a GPU for it.
"""

import argparse
import contextlib
import dataclasses
import functools
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from benchmarks.aot import target
from pallas_kernels import compat, dispatch, shapes

PLATFORM = {"h200": "cuda", "v5e": "tpu", "v6e": "tpu"}


@dataclasses.dataclass(frozen=True)
class Row:
    """The outcome of one compile; registers and spilled bytes are the worst of its kernels, None for TPUs."""

    name: str
    seconds: float
    error: str | None = None
    registers: int | None = None
    spilled: int | None = None

    @property
    def good(self) -> bool:
        return self.error is None and not self.spilled

    def __str__(self) -> str:
        outcome = "compiled" if self.error is None else "FAILED"
        gpu = "" if self.registers is None else f"  {self.registers:3d} registers  {self.spilled} bytes spilled"
        return f"{outcome:8s}  {self.seconds:5.1f} s{gpu}  {self.name}" + (f": {self.error}" if self.error else "")


def missing(on: str) -> str | None:
    """Why kernels cannot be compiled for `on` here; None if they can."""
    return (compat.mosaic_gpu_missing() if on == "h200" else None) or target.missing(on)


def rows(on: str, case: shapes.Case, words: Sequence[str] = ()) -> Iterator[Row]:
    """Compiles a case by each implementation, where the row's name contains all words."""
    for implementation in dispatch.implementations(case.kernel, PLATFORM[on]):
        name = f"{case.kernel} {implementation} {case.name}"
        if implementation != "cudnn" and all(word in name for word in words):
            yield compiled(on, name, functools.partial(case.call, implementation), *case.specs)


def compiled(on: str, name: str, call: Callable[..., Any], *specs: Any) -> Row:
    """Compiles one call. ptxas' report of registers and spills is read where Mosaic GPU writes it, on stdout or stderr."""
    begin, error = time.perf_counter(), None
    with _output() as output, _no_cache():
        try:
            target.compile_for(on, call, *specs)
        except Exception as raised:  # whatever a compiler has to say becomes the row
            error = f"{type(raised).__name__}: {str(raised).strip().partition(chr(10))[0]}"
    seconds = time.perf_counter() - begin
    if on != "h200" or error is not None:
        return Row(name, seconds, error)
    registers = [int(n) for n in re.findall(r"Used (\d+) registers", output[0])]
    spilled = [int(n) for n in re.findall(r"(\d+) bytes spill (?:stores|loads)", output[0])]
    if not registers or not spilled:
        return Row(name, seconds, "ptxas reported no registers")
    return Row(name, seconds, None, max(registers), max(spilled))


@contextlib.contextmanager
def _no_cache() -> Iterator[None]:
    """A program from the persistent cache would tell nothing about its registers."""
    enabled = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", enabled)
        compilation_cache.reset_cache()


@contextlib.contextmanager
def _output() -> Iterator[list[str]]:
    """What this process, compilers in C++ included, writes meanwhile; filled in at the end."""
    collected: list[str] = []
    sys.stdout.flush()
    sys.stderr.flush()
    saved, before = [os.dup(1), os.dup(2)], os.environ.get("MOSAIC_GPU_DUMP_PTXAS")
    os.environ["MOSAIC_GPU_DUMP_PTXAS"] = "1"
    with tempfile.TemporaryFile() as file:
        try:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            yield collected
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, copy in zip((1, 2), saved, strict=True):
                os.dup2(copy, number)
                os.close(copy)
            os.environ.pop("MOSAIC_GPU_DUMP_PTXAS")
            if before is not None:
                os.environ["MOSAIC_GPU_DUMP_PTXAS"] = before
            file.seek(0)
            collected.append(file.read().decode(errors="replace"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", choices=target.TARGETS, required=True)
    parser.add_argument("words", nargs="*")
    arguments = parser.parse_args()
    if reason := missing(arguments.target):
        sys.stderr.write(f"{reason}\n")
        return 1
    done = []
    for case in shapes.cases():
        for row in rows(arguments.target, case, arguments.words):
            sys.stdout.write(f"{row}\n")
            sys.stdout.flush()
            done.append(row)
    good = sum(row.good for row in done)
    sys.stdout.write(f"{good} of {len(done)} kernels and shapes compiled for {arguments.target} without a spill\n")
    return 0 if done and good == len(done) else 1


if __name__ == "__main__":
    sys.exit(main())
