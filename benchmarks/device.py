"""What a device is asked first: is everything right on it, how fast is it beside what was predicted, and how much does it hold?

    make device                  or: python -m benchmarks.device [--minutes 9] [--model random:qwen2.5-vl-7b] [--out FILE]

In the order of telling, each a row of one JSON file that is written as soon as it is known:

    kernel ...      every Pallas kernel at its real shapes gives XLA's answer (relative error of the largest value)
    golden ...      every recording of the authors' implementation, float32, token for token
    second          one second of a model with random weights, its parts beside the bound of `benchmarks.roofline`
    streams N       N streams in one program: tokens a second, and the time to the first token of all of them
    table ...       every kernel, timed beside XLA and the libraries that can do the same

A part that fails is a row that says why; the others follow. When the minutes are over the rest is left: the same command goes
on where the file ends. Peak memory stands in every row of `second` and `streams`. The figure beside the file is drawn last.
"""

import argparse
import dataclasses
import functools
import json
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import matplotlib.figure

from benchmarks import golden_replay, kernels
from pallas_kernels import shapes
from svlm_jax.cache.number_formats import EightBit
from svlm_jax.eval import efficiency
from svlm_jax.eval.results import Rows, manifest
from svlm_jax.streaming.vlm import StreamingVLM

RESULTS = pathlib.Path(__file__).parent / "results"
GOLDEN = pathlib.Path(__file__).parents[1] / "tests" / "golden"
SIZE = 560, 1008  # of 720p, scaled for the model
STREAMS = (1, 2, 4, 8, 16, 32, 48)
TOKENS = 20  # of a reply

Row = dict[str, Any]
Part = tuple[str, Callable[[], Row]]


@dataclasses.dataclass(frozen=True)
class Asked:
    """What is measured: a model by name, its number formats, picture size, and the kernels' cases."""

    model: str
    quantize: EightBit | None
    size: tuple[int, int]
    streams: tuple[int, ...]
    cases: tuple[shapes.Case, ...]
    seconds: int = 20  # of video before what is timed: the window has closed

    @functools.cached_property
    def vlm(self) -> StreamingVLM:
        return StreamingVLM.from_pretrained(self.model, quantize=self.quantize)

    @property
    def plan(self) -> efficiency.Plan:
        return efficiency.Plan(size=self.size, tokens=TOKENS, repeats=3)


def parts(asked: Asked) -> Iterator[Part]:
    """Names and what they measure, the most telling first."""
    for case in asked.cases:
        yield f"kernel {case.kernel} {case.name}", functools.partial(checked, case)
    for folder in sorted(path for path in GOLDEN.iterdir() if (path / "checkpoint").is_dir()):
        for case in golden_replay.cases(folder):
            yield f"golden {folder.name} {case}", functools.partial(replayed, folder, case)
    yield "second", functools.partial(second, asked)
    for count in asked.streams:
        yield f"streams {count}", functools.partial(together, asked, count)
    for case in asked.cases:
        yield f"table {case.kernel} {case.name}", functools.partial(timed, case)


def checked(case: shapes.Case) -> Row:
    """The implementation that this device would take, against XLA's."""
    arrays = case.sample(jax.random.key(0))
    ours, expected = (jax.jit(functools.partial(case.call, name))(*arrays) for name in ("auto", "xla"))
    error = kernels.difference(ours, expected)
    return {"error": error, "right": error < kernels.TOLERANCE}


@functools.cache
def _recorded(folder: pathlib.Path) -> StreamingVLM:
    return StreamingVLM.from_pretrained(folder / "checkpoint", dtype="float32")


def replayed(folder: pathlib.Path, case: str) -> Row:
    row = golden_replay.replay(_recorded(folder), folder, case)
    return {**dataclasses.asdict(row), "right": row.exact}


def second(asked: Asked) -> Row:
    """Medians of a second's parts, and how they compare with the predicted bound where there is one for this device."""
    found = efficiency.steady(asked.vlm, asked.plan, "stream", asked.seconds, parts=True)
    found = {name: value for name, value in found.items() if name != "shape"} | _peak()
    if (bound := predicted(asked)) is not None:
        found["bound_ms"] = bound
        found["of_bound"] = sum(bound.values()) / found["ms"]
    return found


def predicted(asked: Asked) -> dict[str, float] | None:
    """ms of vision, prefill and decoding of a second at the roofline; None where no record fits."""
    file = RESULTS / "roofline.json"
    kind = jax.devices()[0].device_kind
    target = next((name for name, device in kernels.DEVICES.items() if kind.startswith(device.kind)), None)
    if target is None or not file.exists():
        return None
    wanted = {"model": asked.model.removeprefix("random:"), "target": target, "streams": 1, "quantize": asked.quantize}
    for record in json.loads(file.read_text(encoding="utf-8"))["records"]:
        fits = all(record[name] == value for name, value in wanted.items()) and record["cache_dtype"] == "bfloat16"
        if fits and {"vision", "prefill", "decode"} <= record.keys():
            times = {"vision": 1, "prefill": 1, "decode": TOKENS - 1}  # the first token comes with the prefill
            return {name: record[name]["bound_ms"] * count for name, count in times.items()}
    return None


def together(asked: Asked, count: int) -> Row:
    found = efficiency.together(asked.vlm, asked.plan, count, asked.seconds)
    return {**found, "tokens_per_second": 1e3 / found["ms_per_token"], "first_token_ms": found["ms"]} | _peak()


def timed(case: shapes.Case) -> Row:
    kind = jax.devices()[0].device_kind
    device = next((one for one in kernels.DEVICES.values() if kind.startswith(one.kind)), None)
    if device is None:
        return {"note": f"no figures of {kind} are known"}
    return {"rows": [dataclasses.asdict(row) for row in kernels.measure(case, device, present=True)]}


def _peak() -> Row:
    stats = jax.devices()[0].memory_stats() or {}
    return {"peak_bytes": stats.get("peak_bytes_in_use")}


def run(asked: Asked, rows: Rows, minutes: float, tell: Callable[[str], None]) -> int:
    """Measures what is missing until the time is over. Returns the number of parts that are left."""
    begin, left = time.monotonic(), 0
    for name, measure in parts(asked):
        if name in rows:
            continue
        if time.monotonic() - begin > 60 * minutes:
            left += 1
            continue
        started = time.monotonic()
        try:
            row = measure()
        except Exception as error:  # one part that fails must not hide the others
            row = {"right": False, "failed": f"{type(error).__name__}: {str(error).partition(chr(10))[0][:300]}"}
        rows.add(name, row | {"wall_seconds": round(time.monotonic() - started, 1)})
        tell(f"{name}: {shown(row)}")
    return left


def shown(row: Row) -> str:
    """A row in a line."""
    if "failed" in row:
        return row["failed"]
    names = ("right", "error", "ms", "of_bound", "tokens_per_second", "peak_bytes")
    told = {name: row[name] for name in names if row.get(name) is not None}
    return ", ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in told.items())


def draw(rows: dict[str, Row], path: pathlib.Path, title: str) -> None:
    """Left, the parts of a second beside their bounds; right, tokens a second for so many streams."""
    figure = matplotlib.figure.Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    one = rows.get("second", {})
    for offset, (key, label) in enumerate((("parts_ms", "measured"), ("bound_ms", "bound"))):
        values = one.get(key) or {}
        names = [name for name in ("vision", "prefill", "decode") if name in values]
        left.bar([i + 0.4 * offset for i in range(len(names))], [values[name] for name in names], 0.4, label=label)
        if names:
            left.set_xticks([i + 0.2 for i in range(len(names))], names)
    left.set(ylabel="ms", title=title)
    left.legend()
    counts = sorted(int(name.split()[1]) for name, row in rows.items() if name.startswith("streams ") and "ms" in row)
    right.plot(counts, [rows[f"streams {count}"]["tokens_per_second"] for count in counts], "o-")
    right.set(xlabel="streams", ylabel="tokens a second", ylim=(0, None))
    figure.savefig(path, dpi=120)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.0, help="no part is begun after so many (9)")
    parser.add_argument("--model", default="random:qwen2.5-vl-7b", help="as everywhere (random:qwen2.5-vl-7b)")
    parser.add_argument("--quantize", choices=("int8", "fp8"))
    parser.add_argument(
        "--size", type=int, nargs=2, default=SIZE, metavar=("HEIGHT", "WIDTH"), help="of the pictures (560 1008)"
    )
    parser.add_argument("--streams", type=int, nargs="+", default=STREAMS)
    parser.add_argument("--kernels", choices=("all", "none"), default="all")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS / "device.json")
    arguments = parser.parse_args(argv)
    cases = tuple(shapes.cases()) if arguments.kernels == "all" else ()
    asked = Asked(arguments.model, arguments.quantize, tuple(arguments.size), tuple(arguments.streams), cases)
    kind = jax.devices()[0].device_kind
    settings = {"model": asked.model, "quantize": asked.quantize, "size": asked.size, "device": kind}
    rows = Rows(arguments.out, settings, manifest(["python", "-m", "benchmarks.device", *sys.argv[1:]]))
    left = run(asked, rows, arguments.minutes, print_line)
    draw(rows.rows, arguments.out.with_suffix(".png"), f"{asked.model}, {kind}")
    print_line(f"written: {arguments.out}" + (f"; {left} parts are left, the same command goes on" if left else ""))
    return 1 if any(row.get("right") is False for row in rows.rows.values()) else 0


def print_line(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
