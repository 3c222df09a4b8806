"""What a second costs at the roofline of a device: launches, bytes and products of its parts, and a lower bound of time.

    python -m benchmarks.roofline --model qwen2.5-vl-7b --target h200 --streams 1 [--json FILE]

The vision tower, the prefill of a turn and one decoded token are compiled for the target, on a machine without one, and read
(`benchmarks/aot/hlo.py`). The bound of a kernel is the largest of its bytes over the bandwidth, its products over the peak, and
the shortest time that a launch takes; their sum is the part's bound. Products inside Pallas kernels are not seen, their bytes
are. Layers are alike, so a decoder of a few layers is compiled twice, and the rest is extrapolated: --layers 2 4, or --whole.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from benchmarks.aot import step, target
from benchmarks.aot.hlo import BYTES, Kernel, Program, shapes
from svlm_jax.engine import commentate
from svlm_jax.host import xla_flags
from svlm_jax.models import functional
from svlm_jax.models.presets import PRESETS


@dataclasses.dataclass(frozen=True)
class Machine:
    """bandwidth in bytes a second, peak in bfloat16 operations a second, launch: the least seconds of a kernel."""

    bandwidth: float
    peak: float
    launch: float


# H200: measured with copies and products; its launch is that of a kernel inside a CUDA graph, assumed. TPUs: as published;
# their programs have no launches, the time between two fusions is assumed.
MACHINES = {
    "h200": Machine(4.3e12, 790e12, 2e-6),
    "v5e": Machine(819e9, 197e12, 0.3e-6),
    "v6e": Machine(1640e9, 918e12, 0.3e-6),
}


@dataclasses.dataclass(frozen=True)
class Part:
    """One part of a second: counts and sums over its kernels; weights_ms: reading its weights once."""

    launches: float
    bytes: float
    flops: float
    temporary_arrays: float  # results of kernels of 1 MiB or more
    largest_float32: float  # bytes of the largest float32 result
    bound_ms: float
    weights_ms: float
    weights_share: float
    temporary_bytes: float

    @classmethod
    def of(cls, kernels: Sequence[Kernel], machine: Machine, weights: float, temporary: float) -> "Part":
        def seconds(one: Kernel) -> float:
            return max(one.bytes / machine.bandwidth, one.flops / machine.peak, machine.launch)

        results = [(kind, BYTES[kind] * _count(dims)) for one in kernels for kind, dims in shapes(one.type)]
        bound = 1e3 * sum(one.times * seconds(one) for one in kernels)
        read = 1e3 * weights / machine.bandwidth
        return cls(
            launches=sum(one.times for one in kernels),
            bytes=sum(one.times * one.bytes for one in kernels),
            flops=sum(one.times * one.flops for one in kernels),
            temporary_arrays=sum(size >= 2**20 for _, size in results),
            largest_float32=max((size for kind, size in results if kind == "f32"), default=0.0),
            bound_ms=bound,
            weights_ms=read,
            weights_share=read / bound if bound else 0.0,
            temporary_bytes=temporary,
        )


def _count(dims: tuple[int, ...]) -> int:
    total = 1
    for size in dims:
        total *= size
    return total


def extrapolated(few: Part, more: Part, layers: tuple[int, int], wanted: int, weights_ms: float) -> Part:
    """The part with `wanted` layers, from those with layers[0] and layers[1]: each further layer adds the same."""
    a, b = dataclasses.asdict(few), dataclasses.asdict(more)
    ratio = (wanted - layers[0]) / (layers[1] - layers[0])
    found = {name: a[name] + (b[name] - a[name]) * ratio for name in a} | {"largest_float32": more.largest_float32}
    return Part(**found | {"weights_ms": weights_ms, "weights_share": weights_ms / found["bound_ms"]})


def size(tree: Any) -> float:
    """Bytes of arrays or their shapes."""
    return float(sum(_count(leaf.shape) * jnp.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree)))


def compiled(on: str, function: Callable[..., Any], *arguments: Any, donated: tuple[int, ...] = ()) -> tuple[Program, float]:
    """The program of a function for a target, and the bytes of its temporary arrays."""
    options = dict(xla_flags.GPU) if on == "h200" else None
    with target.tracing(on):
        lowered = jax.jit(function, donate_argnums=donated).lower(*target.on(on, arguments))
        done = lowered.compile(compiler_options=options)
    return Program(done.as_text()), float(done.memory_analysis().temp_size_in_bytes)


def measure(
    of: commentate.StepConfig, on: str, streams: int, *, dtype: DTypeLike = jnp.bfloat16, parts: Sequence[str] | None = None
) -> dict[str, Part]:
    """The parts of a second of this configuration (default: vision, prefill, decode), as it is compiled for the target."""
    params, state, turn, frames, active = step.shapes(of, dtype, streams)
    machine, found = MACHINES[on], {}

    def encode(params: Any, state: Any, frames: Any, active: Any) -> Any:
        return commentate.encode_clip(params, state, frames, active, config=of)

    def prefill(params: Any, state: Any, turn: Any, clip: Any, active: Any) -> Any:
        return commentate.prefill(params, state, turn, clip, active, config=of)

    def decode(params: Any, state: Any, prefilled: Any) -> Any:
        return commentate.reply(params, state, prefilled, config=of)

    clip = jax.eval_shape(encode, params, state, frames, active)
    prefilled = jax.eval_shape(prefill, params, state, turn, clip, active)
    decoder = {name: leaf for name, leaf in params["decoder"].items() if name != "embed" or "head" not in params["decoder"]}
    tower = {name: leaf for name, leaf in params.items() if name != "decoder"}
    programs: dict[str, tuple[Callable[..., Any], tuple[Any, ...], tuple[int, ...], Any]] = {
        "vision": (encode, (params, state, frames, active), (), tower),
        "prefill": (prefill, (params, state, turn, clip, active), (1,), decoder),
        "decode": (decode, (params, state, prefilled), (2,), decoder),
    }
    for name in parts or programs:
        function, arguments, donated, weights = programs[name]
        program, temporary = compiled(on, function, *arguments, donated=donated)
        body = max((body for _, body in program.loops()), key=lambda b: len(program.computations[b]), default=None)
        kernels = program.kernels(body if name == "decode" else None)
        found[name] = Part.of(kernels, machine, size(weights), temporary)
    return found


def with_layers(of: commentate.StepConfig, layers: int) -> commentate.StepConfig:
    """The same with another number of decoder layers."""
    text = dataclasses.replace(of.model.text, num_layers=layers)
    return dataclasses.replace(of, model=dataclasses.replace(of.model, text=text))


def report(model: str, on: str, streams: int, layers: tuple[int, int] | None = (2, 4), **options: Any) -> dict[str, Any]:
    """The record of a model. layers: numbers of decoder layers that are compiled; None = all of them."""
    whole = step.config(model)
    depth = whole.model.text.num_layers
    if layers is None:
        parts = measure(whole, on, streams, **options)
    else:
        few, more = (measure(with_layers(whole, count), on, streams, **options) for count in layers)
        decoder = functional.abstract_params(whole.model, jnp.bfloat16)["decoder"]
        weights = size({name: leaf for name, leaf in decoder.items() if name != "embed" or "head" not in decoder})
        read = 1e3 * weights / MACHINES[on].bandwidth
        parts = {
            name: few[name] if name == "vision" else extrapolated(few[name], more[name], layers, depth, read) for name in few
        }
    params, state, *_ = step.shapes(whole, jnp.bfloat16, streams)
    cache = size((state.keys, state.values))
    return {
        "model": model,
        "target": on,
        "streams": streams,
        "jax": jax.__version__,
        "slots": whole.ring.slots,
        "layers": depth,
        "compiled_layers": list(layers) if layers else depth,
        "weights_bytes": size(params),
        "cache_bytes": cache,
        "memory_bytes": size((params, state)) + max(part.temporary_bytes for part in parts.values()),
        **{name: dataclasses.asdict(part) for name, part in parts.items()},
    }


def table(record: dict[str, Any]) -> str:
    """The record for people."""
    lines = [
        f"{record['model']}, {record['streams']} streams of {record['slots']} slots, {record['target']}: weights "
        f"{record['weights_bytes'] / 1e9:.2f} GB, in all {record['memory_bytes'] / 1e9:.2f} GB",
        f"{'':8s} {'launches':>9s} {'GB':>9s} {'TFLOP':>8s} {'bound ms':>9s} {'weights':>8s}",
    ]
    for name in ("vision", "prefill", "decode"):
        if (part := record.get(name)) is not None:
            lines.append(
                f"{name:8s} {part['launches']:9.0f} {part['bytes'] / 1e9:9.3f} {part['flops'] / 1e12:8.3f} "
                f"{part['bound_ms']:9.3f} {part['weights_share']:7.0%}"
            )
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=sorted(PRESETS), default="qwen2.5-vl-7b")
    parser.add_argument("--target", choices=target.TARGETS, default="h200")
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--part", action="append", choices=("vision", "prefill", "decode"), help="default: all three")
    parser.add_argument("--layers", type=int, nargs=2, default=(2, 4), help="decoder layers of the two programs (default: 2 4)")
    parser.add_argument("--whole", action="store_true", help="compile all layers: minutes")
    parser.add_argument("--json", help="write the record to this file")
    arguments = parser.parse_args()
    if reason := target.missing(arguments.target):
        sys.stderr.write(f"{reason}\n")
        return 1
    layers = None if arguments.whole else tuple(arguments.layers)
    record = report(arguments.model, arguments.target, arguments.streams, layers, parts=arguments.part)
    sys.stdout.write(table(record))
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            file.write(json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
