"""Compiles one second of a model, 16 s of 720p and 512 + 512 words of text, for an H200 without one.

    python -m benchmarks.aot.step [--model qwen3-vl-8b]

Prints what the compiled program takes in memory. Exit status 1 when it does not compile or needs more than 24 GB.
"""

import argparse
import collections
import dataclasses
import re
import sys
import time

import jax
import jax.numpy as jnp

from benchmarks.aot import target
from svlm_jax.cache.ring import Tokens
from svlm_jax.cache.window import Lengths, TurnIds, WindowConfig, ring_shape
from svlm_jax.engine import commentate as step
from svlm_jax.engine import lanes
from svlm_jax.engine.sampling import Sampling
from svlm_jax.models import functional, registry
from svlm_jax.models.config import ModelConfig
from svlm_jax.models.presets import preset

LIMIT = 24e9  # bytes
CELLS = 20, 36  # tokens of a frame of 720p, as the resize rules of all families make them
# Token counts of Qwen's own tokenizer: system turn 11, seven-digit time labels 22, time stamps 12.
LENGTHS = Lengths(system=11, previous=0, label=22, query=16, reply=20, patches=CELLS[0] * CELLS[1])
STAMP = 12


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What a compiled second takes: seconds to compile, bytes by kind, and copies of a layer's whole keys or values.

    A copy in the decode loop costs 20 times what one at the start of the second costs: jax 0.12 makes 56 of the latter
    (0.36 ms on an H200, estimated from its bandwidth), jax 0.10 none.
    """

    seconds: float
    slots: int
    arguments: int
    temporary: int
    total: int
    copies_a_second: int
    copies_a_token: int


def lengths_of(model: ModelConfig) -> Lengths:
    """LENGTHS, with a time stamp before the one temporal grid of a second where the family has them."""
    stamped = registry.record(model).layout.time_stamp is not None
    return dataclasses.replace(LENGTHS, marks=LENGTHS.marks + STAMP * stamped)


def config(model: str = "qwen2.5-vl-7b") -> step.StepConfig:
    window, lengths = WindowConfig(), lengths_of(preset(model))
    ids = TurnIds(im_end=151645, newline=198, marker=(2503,), stop=(151643, 151645))
    return step.StepConfig(preset(model), ring_shape(window, lengths, 1.0, None), ids, Sampling().bounds, "bfloat16")


def shapes(of: step.StepConfig, dtype=jnp.bfloat16, streams: int = 1):
    """Parameters, state, turn, frames and active mask of 720p streams, as shapes."""
    limits, lengths = WindowConfig().limits(1.0, None), lengths_of(of.model)
    length = 3 + lengths.label + lengths.marks + lengths.patches + lengths.query + 2 + 3
    height, width = (side * registry.resize_rule(of.model).factor for side in CELLS)

    def array(dtype, *shape):
        return jax.ShapeDtypeStruct((streams, *shape), dtype)

    i32, f32 = jnp.int32, jnp.float32
    turn = Tokens(
        token=array(i32, length), role=array(i32, length), chunk_index=array(i32, length), pos_offset=array(f32, 3, length),
        pos_step=array(f32, length), patch=array(i32, length), valid=array(jnp.bool_, length),
    )  # fmt: skip
    state = jax.eval_shape(lambda: lanes.init(of, streams, window=limits))
    return functional.abstract_params(of.model, dtype), state, turn, array(jnp.uint8, 2, 3, height, width), array(jnp.bool_)


def compile_second(device: str = "h200", model: str = "qwen2.5-vl-7b") -> Compiled:
    of = config(model)
    begin = time.perf_counter()
    compiled = step.step.lower(*target.on(device, shapes(of)), config=of).compile()
    seconds = time.perf_counter() - begin
    memory, text = compiled.memory_analysis(), of.model.text
    cache = rf"\w+\[1,{text.num_kv_heads},{of.ring.slots},{text.head_dim}\]"
    copies: collections.Counter[str] = collections.Counter()
    computation = ""
    for line in compiled.as_text().splitlines():
        if line.endswith("{") and not line.startswith(" "):
            computation = line.split()[0]
        copies[computation] += bool(re.search(rf"= {cache}\S* copy\(", line))
    return Compiled(
        seconds=seconds,
        slots=of.ring.slots,
        arguments=memory.argument_size_in_bytes,
        temporary=memory.temp_size_in_bytes,
        total=memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes,
        copies_a_second=copies["ENTRY"],
        copies_a_token=copies.total() - copies["ENTRY"],
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="qwen2.5-vl-7b", help="a preset (default: %(default)s)")
    model = parser.parse_args().model
    if reason := target.missing("h200"):
        sys.stderr.write(f"{reason}\n")
        return 1
    done = compile_second(model=model)
    sys.stdout.write(
        f"{model}, bfloat16, {done.slots} slots, H200: compiled in {done.seconds:.1f} s with jax {jax.__version__}\n"
        f"  arguments {done.arguments / 1e9:6.2f} GB   (weights and cache)\n"
        f"  temporary {done.temporary / 1e9:6.2f} GB\n"
        f"  total     {done.total / 1e9:6.2f} GB   limit {LIMIT / 1e9:.0f} GB\n"
        f"  copies of a layer's keys or values: {done.copies_a_second} a second, {done.copies_a_token} a token\n"
    )
    return 0 if done.total < LIMIT and not done.copies_a_token else 1


if __name__ == "__main__":
    sys.exit(main())
