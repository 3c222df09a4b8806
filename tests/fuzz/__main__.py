"""Long fuzzing of every reader: `make fuzz`, or

    python -m tests.fuzz [--inputs 10000] [--readers PART ...] [--out benchmarks/results/fuzz.json]

Each reader runs in a process of its own, which a crash ends and a hang stalls; both are seen from outside. What went wrong is
kept in a folder, by reader and number of the input. The exit code is 1 when anything did. The figures are written after each
reader, each with the commit that it ran on; those of readers that do not run this time stay.
"""

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console

from svlm_jax.eval.results import manifest, write_json
from tests.fuzz import readers
from tests.fuzz.run import fuzz_in_process


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--inputs", type=int, default=10_000, help="damaged files of each kind (10000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--readers", nargs="*", default=[], help="parts of names (all)")
    parser.add_argument("--out", type=Path, help="file for the figures")
    parser.add_argument("--failures", type=Path, default=Path("fuzz-failures"), help="folder for what went wrong")
    arguments = parser.parse_args()
    console, wrong = Console(highlight=False), 0
    known = json.loads(arguments.out.read_text())["readers"] if arguments.out and arguments.out.exists() else {}
    known = {name: known[name] for name in readers.READERS if name in known}
    about = manifest(["make", "fuzz"])
    for name in readers.names(arguments.readers):
        result = fuzz_in_process(name, arguments.inputs, seed=arguments.seed, failures=arguments.failures)
        wrong += sum(result[key] for key in ("foreign", "hangs", "crashes"))
        told = ", ".join(f"{key.replace('_', ' ')} {value:,}" for key, value in result.items())
        console.print(f"{name}: {told}", markup=False, soft_wrap=True)
        known[name] = {**result, "seed": arguments.seed, "commit": about["commit"], "date": about["date"]}
        if arguments.out:
            write_json(arguments.out, {**about, "readers": known})
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
