"""What a second costs at the roofline of a device: launches, bytes and products of its parts, and a lower bound of time.

    python -m benchmarks.roofline --model qwen2.5-vl-7b --target h200 --streams 1 [--quantize int8] [--json FILE]

The vision tower, the prefill of a turn and one decoded token are compiled for the target, on a machine without one, and read
(`benchmarks/aot/hlo.py`). The bound of a kernel is the largest of its bytes over the bandwidth, its products over the peak, and
the shortest time that a launch takes; their sum is the part's bound. Products inside Pallas kernels are not seen, their bytes
are. Layers are alike, so a decoder of a few layers is compiled twice, and the rest is extrapolated: --layers 1 2, or --whole.
"""

import argparse
import dataclasses
import functools
import itertools
import json
import math
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, get_args

import jax
import jax.numpy as jnp

from benchmarks.aot import step, target
from benchmarks.aot.hlo import BYTES, Kernel, Program, shapes
from svlm_jax.cache.number_formats import EightBit
from svlm_jax.engine import commentate
from svlm_jax.host import xla_flags
from svlm_jax.models.presets import PRESETS
from svlm_jax.models.quant import quantize_params

PARTS = ("vision", "prefill", "decode")
# Models, targets, streams, and formats of the weights that are worth a record.
ALL = (
    ("qwen2.5-vl-3b", "qwen2.5-vl-7b", "qwen2.5-vl-32b", "qwen2.5-vl-72b", "qwen3-vl-8b"),
    target.TARGETS,
    (1, 8, 48),
    (None, *get_args(EightBit)),
)


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
    weight_copies: float  # results of a matrix' shape: weights that were converted or turned before they were multiplied
    bound_ms: float
    weights_ms: float
    weights_share: float
    temporary_bytes: float

    @classmethod
    def of(cls, kernels: Sequence[Kernel], machine: Machine, weights: Any, temporary: float) -> "Part":
        """weights: those of the part, as shapes. temporary: bytes of the program's temporary arrays."""
        matrices = {leaf.shape for leaf in jax.tree.leaves(weights) if len(leaf.shape) == 2}

        def seconds(one: Kernel) -> float:
            return max(one.bytes / machine.bandwidth, one.flops / machine.peak, machine.launch)

        results = [(kind, BYTES[kind] * math.prod(dims)) for one in kernels for kind, dims in shapes(one.type)]
        bound = 1e3 * sum(one.times * seconds(one) for one in kernels)
        read = 1e3 * size(weights) / machine.bandwidth
        return cls(
            launches=sum(one.times for one in kernels),
            bytes=sum(one.times * one.bytes for one in kernels),
            flops=sum(one.times * one.flops for one in kernels),
            temporary_arrays=sum(nbytes >= 2**20 for _, nbytes in results),
            largest_float32=max((nbytes for kind, nbytes in results if kind == "f32"), default=0.0),
            weight_copies=sum(
                one.times for one in kernels for _, dims in shapes(one.type) if dims in matrices or dims[::-1] in matrices
            ),
            bound_ms=bound,
            weights_ms=read,
            weights_share=read / bound if bound else 0.0,
            temporary_bytes=temporary,
        )


def extrapolated(few: Part, more: Part, layers: tuple[int, int], wanted: int, weights_ms: float) -> Part:
    """The part with `wanted` layers, from those with layers[0] and layers[1]: each further layer adds the same."""
    a, b = dataclasses.asdict(few), dataclasses.asdict(more)
    ratio = (wanted - layers[0]) / (layers[1] - layers[0])
    found = {name: a[name] + (b[name] - a[name]) * ratio for name in a} | {"largest_float32": more.largest_float32}
    return Part(**found | {"weights_ms": weights_ms, "weights_share": weights_ms / found["bound_ms"]})


def size(tree: Any) -> float:
    """Bytes of arrays or their shapes."""
    return float(sum(math.prod(leaf.shape) * jnp.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree)))


def compiled(on: str, function: Callable[..., Any], *arguments: Any, donated: tuple[int, ...] = ()) -> tuple[Program, float]:
    """The program of a function for a target, and the bytes of its temporary arrays."""
    options = dict(xla_flags.GPU) if on == "h200" else None
    with target.tracing(on):
        lowered = jax.jit(function, donate_argnums=donated).lower(*target.on(on, arguments))
        done = lowered.compile(compiler_options=options)
    return Program(done.as_text()), float(done.memory_analysis().temp_size_in_bytes)


def shapes_of(of: commentate.StepConfig, streams: int, quantize: EightBit | None) -> tuple[Any, ...]:
    """`step.shapes` in bfloat16, with the decoder's weights in 8 bits if asked for."""
    params, *others = step.shapes(of, jnp.bfloat16, streams)
    if quantize is not None:
        params = jax.eval_shape(functools.partial(quantize_params, scheme=quantize), params)
    return params, *others


def decoder_weights(params: Any) -> Any:
    """The weights that a token reads: all of the decoder's, but for a table of which it reads a row."""
    decoder = params["decoder"]
    return {name: leaf for name, leaf in decoder.items() if name != "embed" or "head" not in decoder}


def measure(
    of: commentate.StepConfig,
    on: str,
    streams: int,
    *,
    quantize: EightBit | None = None,
    parts: Sequence[str] | None = None,
) -> dict[str, Part]:
    """The parts of a second of this configuration (default: vision, prefill, decode), as it is compiled for the target."""
    params, state, turn, frames, active = shapes_of(of, streams, quantize)
    machine, found = MACHINES[on], {}

    def encode(params: Any, state: Any, frames: Any, active: Any) -> Any:
        return commentate.encode_clip(params, state, frames, active, config=of)

    def prefill(params: Any, state: Any, turn: Any, clip: Any, active: Any) -> Any:
        return commentate.prefill(params, state, turn, clip, active, config=of)

    def decode(params: Any, state: Any, prefilled: Any) -> Any:
        return commentate.reply(params, state, prefilled, config=of)

    clip = jax.eval_shape(encode, params, state, frames, active)
    prefilled = jax.eval_shape(prefill, params, state, turn, clip, active)
    decoder = decoder_weights(params)
    tower = {name: leaf for name, leaf in params.items() if name != "decoder"}
    programs: dict[str, tuple[Callable[..., Any], tuple[Any, ...], tuple[int, ...], Any]] = {
        "vision": (encode, (params, state, frames, active), (), tower),
        "prefill": (prefill, (params, state, turn, clip, active), (1,), decoder),
        "decode": (decode, (params, state, prefilled), (2,), decoder),
    }
    for name in programs if parts is None else parts:
        function, arguments, donated, weights = programs[name]
        program, temporary = compiled(on, function, *arguments, donated=donated)
        body = max((body for _, body in program.loops()), key=lambda b: len(program.computations[b]), default=None)
        kernels = program.kernels(body if name == "decode" else None)
        found[name] = Part.of(kernels, machine, weights, temporary)
    return found


def with_layers(of: commentate.StepConfig, layers: int) -> commentate.StepConfig:
    """The same with another number of decoder layers."""
    text = dataclasses.replace(of.model.text, num_layers=layers)
    return dataclasses.replace(of, model=dataclasses.replace(of.model, text=text))


def report(
    model: str,
    on: str,
    streams: int,
    layers: tuple[int, int] | None = (1, 2),
    *,
    quantize: EightBit | None = None,
    cache_dtype: str = "bfloat16",
    parts: Sequence[str] = PARTS,
) -> dict[str, Any]:
    """The record of a model. layers: numbers of decoder layers that are compiled; None = all of them."""
    whole = dataclasses.replace(step.config(model), cache_dtype=cache_dtype)
    depth = whole.model.text.num_layers
    params, state, *_ = shapes_of(whole, streams, quantize)
    if layers is None:
        measured = measure(whole, on, streams, quantize=quantize, parts=parts)
    else:
        few = measure(with_layers(whole, layers[0]), on, streams, quantize=quantize, parts=parts)
        # The tower has all its blocks in both.
        again = [name for name in parts if name != "vision"]
        more = measure(with_layers(whole, layers[1]), on, streams, quantize=quantize, parts=again)
        read = 1e3 * size(decoder_weights(params)) / MACHINES[on].bandwidth
        measured = few | {name: extrapolated(few[name], more[name], layers, depth, read) for name in again}
    cache = size((state.keys, state.values))
    return {
        "model": model,
        "target": on,
        "streams": streams,
        "quantize": quantize,
        "cache_dtype": cache_dtype,
        "jax": jax.__version__,
        "slots": whole.ring.slots,
        "layers": depth,
        "layers_compiled": list(layers) if layers else depth,
        "weights_bytes": size(params),
        "cache_bytes": cache,
        "memory_bytes": size((params, state)) + max(part.temporary_bytes for part in measured.values()),
        **{name: dataclasses.asdict(part) for name, part in measured.items()},
    }


def table(record: dict[str, Any]) -> str:
    """The record for people."""
    lines = [
        f"{record['model']}, {record['streams']} streams of {record['slots']} slots, {record['target']}: weights "
        f"{record['weights_bytes'] / 1e9:.2f} GB, in all {record['memory_bytes'] / 1e9:.2f} GB",
        f"{'':8s} {'launches':>9s} {'GB':>9s} {'TFLOP':>8s} {'bound ms':>9s} {'weights':>8s}",
    ]
    for name in PARTS:
        if (part := record.get(name)) is not None:
            lines.append(
                f"{name:8s} {part['launches']:9.0f} {part['bytes'] / 1e9:9.3f} {part['flops'] / 1e12:8.3f} "
                f"{part['bound_ms']:9.3f} {part['weights_share']:7.0%}"
            )
    return "\n".join(lines) + "\n"


def add(path: pathlib.Path, record: dict[str, Any]) -> None:
    """Puts a record into a file of them, in place of an older one of the same kind; the file says which of ALL it lacks."""
    kept = json.loads(path.read_text(encoding="utf-8"))["records"] if path.exists() else []

    def key(row: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(row.get(name) for name in ("model", "target", "streams", "quantize", "cache_dtype", "layers_compiled"))

    rows = sorted([row for row in kept if key(row) != key(record)] + [record], key=lambda row: str(key(row)))
    there = {key(row)[:4] for row in rows}
    lacking = [", ".join(str(part or "bfloat16") for part in one) for one in itertools.product(*ALL) if one not in there]
    path.write_text(json.dumps({"records": rows, "not_recorded": lacking}, indent=1) + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=sorted(PRESETS), default="qwen2.5-vl-7b")
    parser.add_argument("--target", choices=target.TARGETS, default="h200")
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--quantize", choices=get_args(EightBit), help="weights of 8 bits (default: bfloat16)")
    parser.add_argument("--cache-dtype", choices=("bfloat16", *get_args(EightBit)), default="bfloat16")
    parser.add_argument("--part", action="append", choices=PARTS, help="default: all three")
    parser.add_argument("--layers", type=int, nargs=2, default=(1, 2), help="decoder layers of the two programs (default: 1 2)")
    parser.add_argument("--whole", action="store_true", help="compile all layers: minutes")
    parser.add_argument("--json", type=pathlib.Path, help="write the record to this file")
    parser.add_argument("--add-to", type=pathlib.Path, help="put it into this file of records, in place of an older one")
    arguments = parser.parse_args()
    if reason := target.missing(arguments.target):
        sys.stderr.write(f"{reason}\n")
        return 1
    layers = None if arguments.whole else tuple(arguments.layers)
    record = report(
        arguments.model,
        arguments.target,
        arguments.streams,
        layers,
        quantize=arguments.quantize,
        cache_dtype=arguments.cache_dtype,
        parts=arguments.part or PARTS,
    )
    sys.stdout.write(table(record))
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if arguments.add_to:
        add(arguments.add_to, record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
