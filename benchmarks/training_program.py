"""What a training step sends between H200s, and what it computes meanwhile: read from a program compiled without any.

    python -m benchmarks.training_program [--model qwen2.5-vl-7b] [--tokens 4096] [--mesh 1,8,1] [--json FILE]

One sample on each device along data x fsdp, with as many clips of 364 x 644 as fit its tokens. The XLA flags are those of
`python -m launch.flags h200`. Needs the CUDA plugin of jaxlib and ptxas (`pip install -e .[aot]`), no GPU and no driver.

    largest_f32_all_reduce_bytes   inside the layers' loops, where it is paid for every layer
    overlapped_share               of the bytes that collectives bring, those between whose start and done a product stands
    working_bytes, state_bytes     of one device: intermediate arrays; weights, gradients and optimizer state
    collectives                    bytes that each kind brings to one device for a micro-batch
"""

import argparse
import collections
import dataclasses
import math
import os
import pathlib
import re
import sys
import time
from typing import TYPE_CHECKING, Any

from benchmarks.aot import hlo

if TYPE_CHECKING:
    from svlm_jax.data.chunks import Batch
    from svlm_jax.models.config import ModelConfig
    from svlm_jax.train.forward import Compute
    from svlm_jax.train.state import Partition

SIZE = (364, 644)  # of a clip: 2 frames, 299 vision tokens
KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective of a computation: its kind, dtypes and bytes of its result, how often it runs, and whether it waits.

    in_loop: it runs for every layer. overlapped: a matrix product stands between its start and its done.
    """

    kind: str
    dtypes: frozenset[str]
    bytes: float
    times: int
    in_loop: bool
    overlapped: bool


def collectives(program: hlo.Program, name: str | None = None, times: int = 1, in_loop: bool = False) -> list[Collective]:
    """Those of a computation in its schedule (default: the entry), and of all that it calls."""
    here = program.computations[program.entry if name is None else name]
    found: list[Collective] = []
    lines = list(here.values())
    for place, one in enumerate(lines):
        if one.op == "while":
            trips = re.search(r'known_trip_count":\{"n":"(\d+)"', one.rest)
            inner = times * (int(trips.group(1)) if trips else 1)
            found += collectives(program, one.called("body"), inner, True)
        elif one.op in ("call", "conditional"):
            for body in hlo.bodies(one):
                found += collectives(program, body, times, in_loop)
        elif (kind := _kind(program, one)) is not None:
            found.append(
                Collective(
                    kind,
                    frozenset(dtype for dtype, _ in hlo.shapes(one.type)),
                    _brought(one),
                    times,
                    in_loop,
                    _overlapped(program, lines[place + 1 :], one),
                )
            )
    return found


def _kind(program: hlo.Program, one: hlo.Instruction) -> str | None:
    """The kind of collective that starts here, None for all else."""
    op = one.op.removesuffix("-start")
    if op == "async":
        inner = program.computations.get(one.called("calls") or "", {}).values()
        return next((line.op for line in inner if line.op in KINDS), None)
    return op if op in KINDS else None


def _brought(one: hlo.Instruction) -> float:
    """Bytes of the result. A start names its operands first: the result is the larger half, or equal to it."""
    parts = [hlo.BYTES[kind] * math.prod(dims) for kind, dims in hlo.shapes(one.type)]
    return sum(parts) if not one.op.endswith("-start") else max(sum(parts[: len(parts) // 2]), sum(parts[len(parts) // 2 :]))


def _overlapped(program: hlo.Program, after: list[hlo.Instruction], start: hlo.Instruction) -> bool:
    if not start.op.endswith("-start") or '"is_sync":true' in start.rest:
        return False
    for one in after:
        if one.op.endswith("-done") and start.name in one.operands:
            return False
        if _is_product(program, one):
            return True
    return False


def _is_product(program: hlo.Program, one: hlo.Instruction) -> bool:
    """A matrix product, or attention, or a loop or fusion that holds one."""
    if one.op in ("dot", "convolution"):
        return True
    if one.op == "custom-call":
        return any(word in one.rest for word in ("gemm", "matmul", "fmha", "mosaic_gpu"))
    if one.op in ("fusion", "while", "call", "conditional"):
        called = [one.called("calls")] if one.op == "fusion" else hlo.bodies(one)
        return any(_is_product(program, line) for name in called if name for line in program.computations[name].values())
    return False


def compiled(
    model: "ModelConfig", compute: "Compute", partition: "Partition", mesh: tuple[int, int, int], tokens: int
) -> tuple[Any, int]:
    """The program of a micro-batch, and the bytes of a device's weights, optimizer state and gradients."""
    from benchmarks.aot import target
    from svlm_jax import sharding
    from svlm_jax.train import memory
    from svlm_jax.train.optimizer import OptimizerConfig, make_optimizer
    from svlm_jax.train.step import Step

    devices = target.devices("h200", math.prod(mesh))
    step = Step(
        model,
        compute,
        partition,
        make_optimizer(OptimizerConfig(), 1000),
        sharding.make_mesh(sharding.MeshConfig(*mesh), devices),
    )
    return step.compile(batch(model, tokens, mesh[0] * mesh[1])), memory.state_bytes(step)


def batch(model: "ModelConfig", tokens: int, rows: int) -> "Batch":
    """Shapes of a micro-batch of `rows` samples."""
    import jax

    from svlm_jax.data.chunks import Bucket, blank_sample

    clips = max(tokens // (model.vision.clip_tokens(2, *SIZE) + 40), 1)  # about 40 words and marks a second
    sample = blank_sample(Bucket(tokens, clips, SIZE), 2)
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((rows, *leaf.shape), leaf.dtype), sample)


def figures(text: str) -> dict[str, Any]:
    """What the text of a compiled program says of its collectives."""
    found = collectives(hlo.Program(text))
    total = sum(one.bytes * one.times for one in found)
    kinds: collections.Counter[str] = collections.Counter()
    for one in found:
        kinds[one.kind] += round(one.bytes * one.times)
    reduced = [one for one in found if one.kind == "all-reduce" and "f32" in one.dtypes]
    return {
        "largest_f32_all_reduce_bytes": round(max((one.bytes for one in reduced if one.in_loop), default=0)),
        "largest_f32_all_reduce_bytes_outside_layers": round(max((one.bytes for one in reduced if not one.in_loop), default=0)),
        "overlapped_share": round(sum(one.bytes * one.times for one in found if one.overlapped) / max(total, 1), 4),
        "collectives": dict(kinds),
        "waited_for": [
            {"kind": one.kind, "bytes": round(one.bytes), "times": one.times}
            for one in sorted(found, key=lambda one: -one.bytes * one.times)
            if not one.overlapped
        ][:10],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="qwen2.5-vl-7b", help="a preset")
    parser.add_argument("--tokens", type=int, default=4096, help="of each sample")
    parser.add_argument("--mesh", default="1,8,1", help="devices along data, fsdp, tensor")
    parser.add_argument("--remat", default="full", choices=("full", "attention", "none"))
    parser.add_argument("--lora", type=int, default=0, metavar="RANK", help="train adapters of this rank only")
    parser.add_argument(
        "--tower-blocks", type=int, metavar="N", help="of a frozen tower, half of what is compiled: so many only"
    )
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE")
    parser.add_argument("--text", type=pathlib.Path, metavar="FILE", help="write the compiled program, to be read")
    arguments = parser.parse_args()

    from launch import flags

    variables, _ = flags.environment("h200")
    os.environ |= {"XLA_FLAGS": variables["XLA_FLAGS"], "JAX_PLATFORMS": "cpu"}  # before jax looks for devices
    from benchmarks.aot import target

    if reason := target.missing("h200"):
        sys.stderr.write(f"{reason}\n")
        return 1
    import jax

    from svlm_jax.host.files import write_json
    from svlm_jax.host.machine import describe
    from svlm_jax.models.presets import preset
    from svlm_jax.train.forward import Compute
    from svlm_jax.train.lora import LoraConfig
    from svlm_jax.train.state import Partition

    mesh = tuple(int(size) for size in arguments.mesh.split(","))
    model = preset(arguments.model)
    if blocks := arguments.tower_blocks:
        model = dataclasses.replace(
            model, vision=dataclasses.replace(model.vision, depth=blocks, fullatt_block_indexes=(blocks - 1,))
        )
    begin = time.perf_counter()
    program, state = compiled(
        model,
        Compute(remat=arguments.remat),
        Partition(lora=LoraConfig(rank=arguments.lora)),
        mesh,  # type: ignore[arg-type]
        arguments.tokens,
    )
    text = program.as_text()
    if arguments.text:
        arguments.text.write_text(text)
    result = {
        "command": " ".join(["python -m benchmarks.training_program", *sys.argv[1:]]),
        "machine": describe(),
        "jax": jax.__version__,
        "xla_flags": variables["XLA_FLAGS"],
        "model": arguments.model,
        "tokens": arguments.tokens,
        "mesh": arguments.mesh,
        **figures(text),
        "working_bytes": program.memory_analysis().temp_size_in_bytes,
        "state_bytes": state,
        "compile_seconds": round(time.perf_counter() - begin, 1),
    }
    if arguments.json:
        write_json(arguments.json, result)
    for name, value in result.items():
        sys.stdout.write(f"{name}: {value}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
