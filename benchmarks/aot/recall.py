"""Compiles LiveVLM on LLaVA-OneVision-7B at its published settings for an H200 without one: the clip, and the question.

    python -m benchmarks.aot.recall [--model qwen2.5-vl-7b]

12,000 tokens kept, clips of 32 frames, 40 % of the pages read, bfloat16. Prints what the programs take in memory. Exit
status 1 when they do not compile or need more than 24 GB, the card of the paper.
"""

import argparse
import dataclasses
import functools
import math
import sys
import time

import jax
import jax.numpy as jnp

from benchmarks.aot import target
from svlm_jax.cache.memory_state import empty_memory, memory_shape
from svlm_jax.cache.policies import memory_policy
from svlm_jax.engine import answer, remember
from svlm_jax.engine.answer import Question
from svlm_jax.engine.remember import Clip, QAConfig
from svlm_jax.engine.sampling import Sampling
from svlm_jax.models import functional
from svlm_jax.models.presets import preset

LIMIT = 24e9  # bytes
MODEL = "llava-onevision-qwen2-7b-ov"
PREFIX, ASKED = 14, 64  # tokens of the system turn and of a question


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What a program takes: seconds to compile, and bytes.

    resident: weights, memory, and what was read for a question, whether this program looks at them or not. new: what it
    makes, and works with.
    """

    name: str
    seconds: float
    resident: int
    new: int
    total: int


def config(model: str = MODEL) -> QAConfig:
    """Pictures are LLaVA-OneVision's 384 x 384, or as many tokens (14 x 14) of a Qwen model."""
    memory, llava = memory_policy(), model.startswith("llava")
    grid, step = ((32, 1, 196), 0.0) if llava else ((16, 14, 14), 8.0)
    shape = memory_shape(memory, prefix=PREFIX, grid=grid, seconds=2.0 if llava else 4.0, step=step)
    sampling = Sampling(temperature=0.0, top_k=0, repetition_penalty=1.0, max_new_tokens=64)
    return QAConfig(preset(model), memory, shape, (151645,), sampling.bounds, "bfloat16")


def compile_all(of: QAConfig | None = None, device: str = "h200") -> list[Compiled]:
    """The clip, the question up to its first token, and the answer behind it."""
    of = of or config()
    text, side = of.model.text, 384 if of.shape.step == 0 else 392
    params = functional.abstract_params(of.model, jnp.bfloat16)
    memory = jax.eval_shape(
        functools.partial(empty_memory, of.memory, of.shape, text.kv_shape, width=text.hidden_size, dtype=jnp.bfloat16)
    )

    def array(dtype, *shape):
        return jax.ShapeDtypeStruct((1, *shape), dtype)

    clip = Clip(array(jnp.uint8, 32, 3, side, side), array(jnp.float32, of.shape.grids), array(jnp.bool_, of.shape.grids))
    words = array(jnp.bool_, ASKED)
    limits = jax.tree.map(lambda x: array(x.dtype), Sampling(temperature=0.0).limits)
    question = Question(array(jnp.int32, ASKED), words, words)
    reading = jax.eval_shape(functools.partial(answer.read, config=of), params, memory, question)
    watch = jax.jit(remember.watch, static_argnames="config", donate_argnames="memory")
    read, reply = (jax.jit(function, static_argnames="config") for function in (answer.read, answer.reply))
    always = size(params) + size(memory)
    return [
        _compile("clip", watch, target.on(device, (params, memory, clip)), of, always + size(clip)),
        _compile("question", read, target.on(device, (params, memory, question)), of, always),
        _compile(
            "answer", reply, target.on(device, (params, reading, array(jnp.uint32, 2), limits)), of, always + size(reading)
        ),
    ]


def size(shapes) -> int:
    """Bytes of arrays, or of their shapes."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(shapes))


def _compile(name: str, program, shapes, of: QAConfig, resident: int) -> Compiled:
    begin = time.perf_counter()
    memory = program.lower(*shapes, config=of).compile().memory_analysis()
    new = memory.output_size_in_bytes - memory.alias_size_in_bytes + memory.temp_size_in_bytes
    return Compiled(name, time.perf_counter() - begin, resident, new, resident + new)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=MODEL)
    arguments = parser.parse_args()
    if reason := target.missing("h200"):
        sys.stderr.write(f"{reason}\n")
        return 1
    of = config(arguments.model)
    sys.stdout.write(f"{arguments.model}, bfloat16, {of.shape.slots} slots, H200, jax {jax.__version__}\n")
    parts = compile_all(of)
    for part in parts:
        sys.stdout.write(
            f"  {part.name:9} compiled in {part.seconds:5.1f} s: resident {part.resident / 1e9:6.2f} GB, new "
            f"{part.new / 1e9:5.2f} GB, total {part.total / 1e9:6.2f} GB   limit {LIMIT / 1e9:.0f} GB\n"
        )
    return 0 if max(part.total for part in parts) < LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
