"""Every Pallas kernel at its real shapes, beside XLA and the libraries that can do the same, on the same inputs in one run.

    python -m benchmarks.kernels [--device h200] [--kernel cache_attention] [--out benchmarks/results/kernels.json]

On the device each implementation is first compared with XLA's answer, gradients included where the case has them, and timed
only when it agrees: the best of several means over a loop inside one program, so that launches from the host do not count.
Where the kernels' own device is not the one at hand, every time reads "not measured". The roofline is an estimate in any
case: the larger of arithmetic at the peak of the tensor cores and bytes that must move at the peak of the memory.
"""

import argparse
import dataclasses
import functools
import pathlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import rich.console
import rich.table
from jax import lax

from benchmarks import rivals
from pallas_kernels import shapes
from pallas_kernels.dispatch import KERNELS
from svlm_jax.host.files import write_json
from svlm_jax.host.machine import describe

LOOP, REPEATS = 20, 5
TOLERANCE = 0.03  # of the largest value: bfloat16 outputs and gradients


@dataclasses.dataclass(frozen=True)
class Device:
    """What a device can do at best, FLOP/s in bfloat16 and bytes/s."""

    kind: str  # begins `device_kind`
    implementation: str
    flops: float
    bytes: float


# H200: measured peaks of a matrix product and of a copy. TPUs: the vendor's figures.
DEVICES = {
    "h200": Device("NVIDIA H200", "mosaic_gpu", 790e12, 4.3e12),
    "v5e": Device("TPU v5 lite", "mosaic_tpu", 197e12, 0.82e12),
    "v6e": Device("TPU v6 lite", "mosaic_tpu", 918e12, 1.64e12),
}


@dataclasses.dataclass(frozen=True)
class Row:
    """One implementation at one shape. `seconds` is None when it was not measured, for the reason in `note`."""

    kernel: str
    case: str
    implementation: str
    roofline_seconds: float  # an estimate
    seconds: float | None
    error: float | None  # largest difference from XLA, relative to its largest value
    tflops: float | None
    tbytes: float | None
    share: float | None  # roofline / measured
    note: str


def measure(case: shapes.Case, device: Device, *, present: bool) -> Iterator[Row]:
    """Rows of a case: ours, XLA, and the libraries that can compute it."""
    ours = [(name, functools.partial(case.call, name)) for name in (device.implementation, "xla")]
    arrays = case.sample(jax.random.key(0)) if present else ()
    expected = jax.jit(ours[1][1])(*arrays) if present else None
    for name, call in [*ours, *rivals.of(case, device.implementation)]:
        yield _row(case, device, name, call, arrays, expected) if present else _unmeasured(case, device, name, "not measured")


def _row(case: shapes.Case, device: Device, name: str, call: Callable[..., Any], arrays: Any, expected: Any) -> Row:
    try:
        wrong = difference(jax.jit(call)(*arrays), expected)
        if not wrong < TOLERANCE:
            return dataclasses.replace(_unmeasured(case, device, name, "WRONG"), error=wrong)
        seconds = duration(call, arrays)
    except Exception as error:  # a library that cannot do this shape is a row, not the end of the table
        return _unmeasured(case, device, name, f"{type(error).__name__}: {str(error).partition(chr(10))[0][:120]}")
    bound = roofline(case, device)
    return Row(
        case.kernel, case.name, name, bound, seconds, wrong,
        case.flops / seconds / 1e12, case.bytes / seconds / 1e12, bound / seconds, "",
    )  # fmt: skip


def _unmeasured(case: shapes.Case, device: Device, name: str, note: str) -> Row:
    return Row(case.kernel, case.name, name, roofline(case, device), None, None, None, None, None, note)


def roofline(case: shapes.Case, device: Device) -> float:
    """Seconds that the device needs at the least: an estimate."""
    return max(case.flops / device.flops, case.bytes / device.bytes)


def difference(ours: Any, expected: Any) -> float:
    """The largest difference of any output, relative to the largest value of that output; NaN if there is one."""
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True)
    floats = ((np.asarray(a.astype(jnp.float32)), np.asarray(b.astype(jnp.float32))) for a, b in pairs)
    return float(np.max([np.abs(a - b).max() / max(np.abs(b).max(), 1e-30) for a, b in floats]))


def duration(call: Callable[..., Any], arrays: Any) -> float:
    """Seconds a call takes on the device. Each pass of the loop waits for the last one: it adds nothing that depends on it."""

    @jax.jit
    def loop(first: jax.Array, *others: Any) -> jax.Array:
        def again(_: int, x: jax.Array) -> jax.Array:
            outputs = jax.tree.leaves(call(x, *others))
            return x + (sum(y.ravel()[0].astype(jnp.float32) for y in outputs) * 0).astype(x.dtype)

        return lax.fori_loop(0, LOOP, again, first)

    jax.block_until_ready(loop(*arrays))
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        jax.block_until_ready(loop(*arrays))
        times.append((time.perf_counter() - begin) / LOOP)
    return min(times)


def show(rows: list[Row], device: Device) -> None:
    """The table on the terminal."""
    table = rich.table.Table(
        title=f"Kernels, {device.kind}; the roofline is an estimate, nothing else is", title_justify="left"
    )
    for column in ("kernel", "shape", "implementation", "roofline µs", "µs", "TFLOP/s", "TB/s", "of roofline", "note"):
        table.add_column(column, justify="left" if column in ("kernel", "shape", "implementation", "note") else "right")
    for row in rows:
        numbers = ("", "", "", "") if row.seconds is None else (
            f"{row.seconds * 1e6:,.1f}", f"{row.tflops:,.0f}", f"{row.tbytes:.2f}", f"{row.share:.0%}",
        )  # fmt: skip
        estimate = f"~{row.roofline_seconds * 1e6:,.1f}"
        table.add_row(row.kernel, row.case, row.implementation, estimate, *numbers, row.note)
    rich.console.Console(width=180).print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=DEVICES, default="h200", help="whose roofline, and whose kernels")
    parser.add_argument("--kernel", choices=KERNELS, action="append", help="default: all")
    parser.add_argument("--out", type=pathlib.Path)
    arguments = parser.parse_args()
    device = DEVICES[arguments.device]
    present = jax.devices()[0].device_kind.startswith(device.kind)
    cases = [case for kernel in arguments.kernel or KERNELS for case in shapes.cases(kernel)]
    rows = [row for case in cases for row in measure(case, device, present=present)]
    show(rows, device)
    if arguments.out:
        report = {
            "command": " ".join(["python -m benchmarks.kernels", *sys.argv[1:]]),
            "machine": describe(),
            "device": dataclasses.asdict(device),
            "measured": present,
            "rows": [dataclasses.asdict(row) for row in rows],
        }
        write_json(arguments.out, report)
    wrong = any(row.implementation == device.implementation and row.seconds is None for row in rows)
    return 1 if present and wrong else 0


if __name__ == "__main__":
    sys.exit(main())
