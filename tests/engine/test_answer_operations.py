"""What remembering and asking cost, counted: operations of programs that are never run, as XLA counts them unoptimised."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import pytest

from svlm_jax.cache.memory_state import empty_memory, memory_shape
from svlm_jax.cache.policies import memory_policy
from svlm_jax.checkpoint.random import random_config
from svlm_jax.engine import answer, remember
from svlm_jax.engine.answer import Question
from svlm_jax.engine.remember import Clip, QAConfig
from svlm_jax.engine.sampling import Sampling
from svlm_jax.models import functional

PREFIX, ASKED = 14, 64
GRID = 32, 14, 14  # 6,272 tokens, as in a clip of LiveVLM


def config(policy: str) -> QAConfig:
    """Two decoder layers of 640 numbers and a block of the tower; 12,000 tokens."""
    model = random_config("qwen2_5_vl", "medium")
    text = dataclasses.replace(model.text, num_layers=2)
    vision = dataclasses.replace(model.vision, depth=1, fullatt_block_indexes=())
    memory = memory_policy(policy, clip_frames=64)
    shape = memory_shape(memory, prefix=PREFIX, grid=GRID, seconds=4.0, step=8.0)
    # The reference keeps all operations in sight: loops over blocks are counted once.
    return QAConfig(
        dataclasses.replace(model, text=text, vision=vision), memory, shape, (), Sampling().bounds, implementation="reference"
    )


def operations(function, config, *arguments) -> float:
    empty = functools.partial(
        empty_memory,
        config.memory,
        config.shape,
        config.model.text.kv_shape,
        width=config.model.text.hidden_size,
        batch=1,
        dtype=jnp.float32,
    )
    program = jax.jit(functools.partial(function, config=config))
    return program.lower(functional.abstract_params(config.model), jax.eval_shape(empty), *arguments).cost_analysis()["flops"]


@functools.cache
def clip(policy: str) -> float:
    grids, rows, columns = GRID
    pixels = jax.ShapeDtypeStruct((1, 2 * grids, 3, 28 * rows, 28 * columns), jnp.uint8)
    second, valid = (jax.ShapeDtypeStruct((1, grids), dtype) for dtype in (jnp.float32, jnp.bool_))
    return operations(remember.watch, config(policy), Clip(pixels, second, valid))


@functools.cache
def question(policy: str, budget: int = 12_000) -> float:
    of = config(policy)
    of = dataclasses.replace(of, shape=dataclasses.replace(of.shape, budget=budget))
    words = jax.ShapeDtypeStruct((1, ASKED), jnp.bool_)
    return operations(answer.read, of, Question(jax.ShapeDtypeStruct((1, ASKED), jnp.int32), words, words))


@pytest.mark.slow
def test_bucketing_adds_less_than_a_hundredth_to_a_clip():
    assert clip("fifo") < clip("vsb+par") < 1.01 * clip("fifo")


def test_a_question_that_reads_forty_per_cent_costs_less_than_sixty():
    assert question("vsb+par") < 0.6 * question("vsb")


@pytest.mark.slow
def test_a_question_sees_no_video_again():
    """A clip is 98 times as many tokens as the question, and goes through the same layers; the budget is what counts."""
    assert question("vsb") < clip("fifo") / 40
    assert question("vsb", 24_000) > 1.2 * question("vsb")
