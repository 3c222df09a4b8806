"""Breaks the package in a copy of the repository, one mutant at a time, and says which breaks no test has seen.

    python -m tests.mutation [--out mutants.json] [words that the file or the text of a mutant must contain]

Exit status 1 when one survives; 2 when the text of one is gone, or when its tests fail without it.
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.mutation.mutants import MUTANTS, Mutant
from tests.mutation.run import run

ROOT = Path(__file__).parents[2]
LEFT_BEHIND = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "runs", "demo-output", "build", "dist")
# Imported once: every run is a fork of a process that has them.
HEAVY = ["pytest", "numpy", "jax", "jax.numpy", "flax.nnx", "optax", "orbax.checkpoint", "tokenizers", "PIL.Image", "av"]
GREEN, RED = 0, 1  # pytest's exit statuses: all passed, some failed


def status(tests: tuple[str, ...], output: Path) -> int | None:
    """The exit status of a run in a process of its own; negative or None: it crashed."""
    process = multiprocessing.get_context("forkserver").Process(target=run, args=(tests, str(output)))
    process.start()
    process.join()
    return process.exitcode


def without_anchor(mutants: list[Mutant]) -> list[Mutant]:
    """Those whose text does not stand in its file exactly once."""
    return [mutant for mutant in mutants if (ROOT / mutant.file).read_text().count(mutant.old) != 1]


def outcome(mutant: Mutant, output: Path) -> str:
    """ "killed", "survived", or what else came of the tests, in the copy that is the working directory."""
    file = Path(mutant.file)
    whole = file.read_text()
    file.write_text(whole.replace(mutant.old, mutant.new))
    try:
        code = status(mutant.tests, output)
    finally:
        file.write_text(whole)
    return {GREEN: "survived", RED: "killed"}.get(code, f"killed: exit status {code}")  # type: ignore[arg-type]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--out", type=Path, help="where the figures go, as JSON")
    arguments = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if all(word in f"{mutant.file} {mutant.old}" for word in arguments.words)]
    for mutant in without_anchor(chosen):
        sys.stderr.write(f"{mutant.file}: expected {mutant.old!r} exactly once\n")
    if without_anchor(chosen):
        return 2
    out = arguments.out and arguments.out.absolute()
    begin = time.perf_counter()
    os.environ |= {"PYTHONDONTWRITEBYTECODE": "1", "JAX_PLATFORMS": "cpu"}  # equal sizes and times would hide a change
    with tempfile.TemporaryDirectory(prefix="svlm-mutants-") as folder:
        copy, output = Path(folder) / "copy", Path(folder) / "output"
        shutil.copytree(ROOT, copy, ignore=LEFT_BEHIND)
        os.chdir(copy)
        sys.path[0] = str(copy)
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{folder}/compiled")
        multiprocessing.get_context("forkserver").set_forkserver_preload(HEAVY)
        tests = tuple(dict.fromkeys(test for mutant in chosen for test in mutant.tests))
        if status(tests, output) != GREEN:
            sys.stderr.write(f"the tests fail without any mutant:\n{output.read_text()[-2000:]}\n")
            return 2
        outcomes = {}
        for mutant in chosen:
            outcomes[mutant] = outcome(mutant, output)
            sys.stdout.write(f"{outcomes[mutant]:10s} {mutant.file}: {mutant.old!r} -> {mutant.new!r}\n")
            sys.stdout.flush()
        os.chdir(ROOT)
    survivors = [mutant for mutant, found in outcomes.items() if found == "survived"]
    sys.stdout.write(f"{len(chosen) - len(survivors)} of {len(chosen)} mutants were seen by a test\n")
    if out:
        rows = [{**dataclasses.asdict(mutant), "outcome": found} for mutant, found in outcomes.items()]
        report = {
            "command": " ".join(["python -m tests.mutation", *sys.argv[1:]]),
            "seconds": round(time.perf_counter() - begin),
            "mutants": len(chosen),
            "killed": len(chosen) - len(survivors),
            "survived": len(survivors),
            "rows": rows,
        }
        out.write_text(json.dumps(report, indent=1) + "\n")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
