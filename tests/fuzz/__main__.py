"""Long fuzzing of every reader: `make fuzz`, or

    python -m tests.fuzz [--inputs 10000] [--readers PART ...] [--out benchmarks/results/fuzz.json]

Each reader runs in a process of its own, which a crash ends and a hang stalls; both are seen from outside. What went wrong is
kept in a folder, by reader and number of the input. The exit code is 1 when anything did.
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
    console, found = Console(highlight=False), {}
    for name in readers.names(arguments.readers):
        found[name] = result = fuzz_in_process(name, arguments.inputs, seed=arguments.seed, failures=arguments.failures)
        told = ", ".join(f"{key.replace('_', ' ')} {value:,}" for key, value in result.items())
        console.print(f"{name}: {told}", markup=False, soft_wrap=True)
    if arguments.out:
        before = json.loads(arguments.out.read_text())["readers"] if arguments.readers and arguments.out.exists() else {}
        command = ["make", "fuzz"]
        write_json(arguments.out, {**manifest(command), "seed": arguments.seed, "readers": {**before, **found}})
    return int(any(result[key] for result in found.values() for key in ("foreign", "hangs", "crashes")))


if __name__ == "__main__":
    sys.exit(main())
