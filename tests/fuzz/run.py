"""Runs damaged files through a reader, and counts how it ends.

A hang is told by processor time, of which a busy machine takes nothing away; a wait for nothing is told by the wall. What looks
like a hang is read again in a process of its own, and counts only if it hangs there too.
"""

import contextlib
import logging
import multiprocessing
import os
import resource
import signal
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from svlm_jax.errors import SvlmError
from tests.fuzz.mutate import mutants
from tests.fuzz.readers import READERS

LONGEST = 10.0  # s of processor time that one file may take
PATIENCE = 120.0  # s of the wall that one file may take: what waits without end takes no processor time
STALLED = 300.0  # s of the wall without a next file: code outside Python hangs
HANGS = 3  # exit code of a process that has met a hang
TIMERS = ((signal.SIGPROF, signal.ITIMER_PROF, lambda: LONGEST), (signal.SIGALRM, signal.ITIMER_REAL, lambda: PATIENCE))
COUNTED = ("inputs", "read", "refused", "foreign", "hangs", "crashes", "memory_mb")


class HangError(BaseException):
    """A reader took too long. No reader can catch it by accident."""


def fuzz(name: str, count: int, *, seed: int = 0, first: int = 0, failures: Path | None = None) -> dict[str, int]:
    """How many files were read, refused by an SvlmError, ended otherwise, or hung; and memory that was taken, in MB."""
    counts = dict.fromkeys(COUNTED, 0)
    for ending, memory in endings(name, count, seed=seed, first=first, failures=failures):
        counts["inputs"] += 1
        counts[ending] += 1
        counts["memory_mb"] = memory
    return counts


def endings(name: str, count: int, *, seed: int, first: int, failures: Path | None) -> Iterator[tuple[str, int]]:
    """For each damaged file, "read", "refused", "foreign" or "hangs", and the memory taken so far, in MB."""
    reader = READERS[name]
    with tempfile.TemporaryDirectory() as folder, _quiet():
        root = Path(folder) / "data"
        root.mkdir()
        reader.prepare(root)
        seeds, before = reader.seeds(), _peak()
        (root / reader.file).parent.mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(mutants(seeds, count, seed=seed, first=first), first):
            (root / reader.file).write_bytes(data)
            ending = _ending(reader.read, root)
            if failures is not None and ending not in ("read", "refused"):
                _keep(failures, name, number, data, ending)
            yield ending if ending in COUNTED else "foreign", _peak() - before


def fuzz_in_process(name: str, count: int, *, seed: int, failures: Path) -> dict[str, int]:
    """`fuzz` in processes of their own: one that crashes, hangs or stalls is counted, and the next goes on behind that file."""
    begin = time.perf_counter()
    total = dict.fromkeys(COUNTED, 0)
    while (number := total["inputs"]) < count:
        counts, end = _in_process(name, count - number, seed, number, failures)
        _add(total, counts)
        if end == "hangs":
            number = total["inputs"]
            counts, end = _in_process(name, 1, seed, number, failures)
            _add(total, counts)
        if end is not None:
            number = total["inputs"]
            damaged = next(mutants(READERS[name].seeds(), 1, seed=seed, first=number))
            _keep(failures, name, number, damaged, end)
            _add(total, {"inputs": 1, end: 1})
    return {**total, "seconds": round(time.perf_counter() - begin)}


def _add(total: dict[str, int], counts: Mapping[str, int]) -> None:
    for key, value in counts.items():
        total[key] = max(total[key], value) if key == "memory_mb" else total[key] + value


def _in_process(name: str, count: int, seed: int, first: int, failures: Path) -> tuple[dict[str, int], str | None]:
    """What a process counted, and what ended it before its end, if anything: "hangs" or "crashes"."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.fuzz.run"])  # what all of them import is imported once
    counts = context.RawArray("q", len(COUNTED))
    process = context.Process(target=_child, args=(name, count, seed, first, failures, counts))
    process.start()
    stalled = _wait(process, counts)
    end = "hangs" if stalled or process.exitcode == HANGS else "crashes" if process.exitcode else None
    return dict(zip(COUNTED, counts, strict=True)), end


def _child(name: str, count: int, seed: int, first: int, failures: Path, counts: Any) -> None:
    for ending, memory in endings(name, count, seed=seed, first=first, failures=failures):
        if ending == "hangs":
            os._exit(HANGS)  # threads that it has left would slow down those that follow
        counts[COUNTED.index(ending)] += 1
        counts[COUNTED.index("memory_mb")] = memory
        counts[COUNTED.index("inputs")] += 1


def _wait(process: Any, counts: Any) -> bool:
    """Until the process ends; True when it had to be killed, because nothing moved."""
    done, since = counts[0], time.monotonic()
    while process.is_alive():
        process.join(0.2)
        if counts[0] != done:
            done, since = counts[0], time.monotonic()
        elif time.monotonic() - since > STALLED:
            process.kill()
            process.join()
            return True
    return False


def _ending(read: Any, root: Path) -> str:
    """ "read", "refused", "hangs", or what else came out."""

    def alarm(*_: Any) -> None:
        raise HangError

    for number, timer, seconds in TIMERS:
        signal.signal(number, alarm)
        signal.setitimer(timer, seconds())
    try:
        read(root)
    except SvlmError as error:
        return (
            "refused"
            if "\n" not in str(error) and len(str(error)) < 3000
            else f"a message of {len(str(error))} characters: {error!s:.200}"
        )
    except HangError:
        return "hangs"
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # panics of extension modules are no Exception
        _stop_timers()
        return f"{type(error).__module__}.{type(error).__name__}: {error!s:.500}"
    finally:
        _stop_timers()
    return "read"


def _stop_timers() -> None:
    for _, timer, _ in TIMERS:
        signal.setitimer(timer, 0)


def _keep(failures: Path, name: str, number: int, data: bytes, ending: str) -> None:
    folder = failures / f"{name.replace(': ', '-').replace(' ', '-')}-{number}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "input").write_bytes(data)
    (folder / "ending.txt").write_text(ending + "\n", encoding="utf-8", errors="replace")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def _peak() -> int:
    """The most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
