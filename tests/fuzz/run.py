"""Runs damaged files through a reader, and counts how it ends."""

import contextlib
import logging
import multiprocessing
import multiprocessing.sharedctypes
import resource
import signal
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from svlm_jax.errors import SvlmError
from tests.fuzz.mutate import mutants
from tests.fuzz.readers import READERS

LONGEST = 10.0  # s that one file may take
STALLED = 90.0  # s without a next file: code outside Python hangs


class HangError(BaseException):
    """A reader took too long. No reader can catch it by accident."""


def fuzz(
    name: str, count: int, *, seed: int = 0, first: int = 0, failures: Path | None = None, progress: Any = None
) -> dict[str, int]:
    """How many files were read, refused by an SvlmError, ended otherwise, or hung; and memory that was taken, in MB."""
    reader = READERS[name]
    counts = {"inputs": 0, "read": 0, "refused": 0, "foreign": 0, "hangs": 0}
    with tempfile.TemporaryDirectory() as folder, _quiet():
        root = Path(folder) / "data"
        root.mkdir()
        reader.prepare(root)
        seeds, before = reader.seeds(), _peak()
        (root / reader.file).parent.mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(mutants(seeds, count, seed=seed, first=first), first):
            (root / reader.file).write_bytes(data)
            ending = _ending(reader.read, root)
            counts["inputs"] += 1
            counts[ending if ending in counts else "foreign"] += 1
            if failures is not None and ending not in ("read", "refused"):
                _keep(failures / f"{name.replace(': ', '-').replace(' ', '-')}-{number}", data, ending)
            if progress is not None:
                progress.value = number + 1
    return {**counts, "memory_mb": _peak() - before}


def fuzz_in_process(name: str, count: int, *, seed: int, failures: Path) -> dict[str, int]:
    """`fuzz` in processes of their own: one that crashes or stalls is counted, and the next goes on behind that file."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.fuzz.run"])  # what all of them import is imported once
    begin = time.perf_counter()
    total: dict[str, int] = dict.fromkeys(("inputs", "read", "refused", "foreign", "hangs", "crashes", "memory_mb"), 0)
    first = 0
    while first < count:
        progress, queue = context.Value("q", first), context.Queue()
        process = context.Process(target=_child, args=(name, count - first, seed, first, failures, progress, queue))
        process.start()
        stalled = _wait(process, progress)
        result = queue.get() if not stalled and process.exitcode == 0 else None
        if result is None:
            kind = "hangs" if stalled else "crashes"
            result = {"inputs": progress.value - first + 1, kind: 1}
            damaged = next(mutants(READERS[name].seeds(), 1, seed=seed, first=progress.value))
            _keep(failures / f"{name.replace(': ', '-').replace(' ', '-')}-{progress.value}", damaged, kind)
        first += result["inputs"]
        for key, value in result.items():
            total[key] = max(total[key], value) if key == "memory_mb" else total[key] + value
    return {**total, "seconds": round(time.perf_counter() - begin)}


def _child(name: str, count: int, seed: int, first: int, failures: Path, progress: Any, queue: Any) -> None:
    queue.put(fuzz(name, count, seed=seed, first=first, failures=failures, progress=progress))


def _wait(process: Any, progress: Any) -> bool:
    """Until the process ends; True when it had to be killed, because nothing moved."""
    value, since = progress.value, time.monotonic()
    while process.is_alive():
        process.join(0.2)
        if progress.value != value:
            value, since = progress.value, time.monotonic()
        elif time.monotonic() - since > STALLED:
            process.kill()
            process.join()
            return True
    return False


def _ending(read: Any, root: Path) -> str:
    """ "read", "refused", "hangs", or what else came out."""

    def alarm(*_: Any) -> None:
        raise HangError

    signal.signal(signal.SIGALRM, alarm)
    signal.setitimer(signal.ITIMER_REAL, LONGEST)
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
        signal.setitimer(signal.ITIMER_REAL, 0)
        return f"{type(error).__module__}.{type(error).__name__}: {error!s:.500}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return "read"


def _keep(folder: Path, data: bytes, ending: str) -> None:
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
