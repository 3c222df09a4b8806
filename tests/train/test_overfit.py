"""Learning reaches streaming: ten chunks learned by heart, then told word for word by a stream that sees their pictures."""

import contextlib
import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from svlm_jax import sharding
from svlm_jax.checkpoint.hf import Checkpoint
from svlm_jax.checkpoint.random import random_config, write_random_checkpoint
from svlm_jax.data.chunks import Bucket, ChunkBuilder, ChunkSettings, Sample, Turn, blank_sample
from svlm_jax.data.pipeline import Pipeline, PipelineSettings
from svlm_jax.engine.sampling import Sampling
from svlm_jax.models import flat_params
from svlm_jax.prompt.tokenizer import Tokenizer
from svlm_jax.sharding import MeshConfig
from svlm_jax.streaming.vlm import StreamingVLM
from svlm_jax.train.checkpoints import Checkpoints, Identity, checksum
from svlm_jax.train.forward import Compute
from svlm_jax.train.loop import Loop, LoopConfig
from svlm_jax.train.metrics import Reports
from svlm_jax.train.optimizer import OptimizerConfig, make_optimizer, schedule
from svlm_jax.train.state import Partition, init_flat, init_state, merged
from svlm_jax.train.step import Step
from svlm_jax.video.chunk import Chunk

SECONDS, SIZE = 3, (56, 56)
CHUNKS = ChunkSettings(system="Tell.", sink=8, tail=8)
BUCKET = Bucket(160, SECONDS, SIZE)
WORDS = ("red", "blue", "goal", "pass", "save", "out", "wide", "corner", "kick-off", "two one")
STEPS = 100


class Ten:
    """Ten chunks of noise, each second with other words, some in silence; all begin at 0 s, so that only pictures tell."""

    name, frames, shuffled = "ten chunks", 2, False

    def __init__(self, build: ChunkBuilder) -> None:
        self.build = build

    def __len__(self) -> int:
        return 10

    def size(self, number: int) -> tuple[int, int]:
        return SIZE

    def length(self, number: int, size: tuple[int, int]) -> tuple[int, int]:
        return self.build.turns_length("", self.turns(number), size), SECONDS

    def load(self, number: int, size: tuple[int, int]) -> Sample:
        return self.build.build("", self.turns(number), self.pictures(number))

    def fingerprint(self) -> str:
        return "ten"

    def words(self, number: int) -> list[str]:
        rng = np.random.default_rng([number, 1])
        said = [" ".join(rng.choice(WORDS, rng.integers(1, 4))) for _ in range(SECONDS)]
        return ["" if (number + second) % 4 == 0 else words for second, words in enumerate(said)]

    def turns(self, number: int) -> list[Turn]:
        said = self.words(number)
        return [Turn(second, second + 1, f" {said[second]}" if said[second] else "") for second in range(SECONDS)]

    def pictures(self, number: int) -> np.ndarray:
        """uint8 (S, 2, 3, height, width)."""
        coarse = np.random.default_rng([number, 2]).integers(0, 256, (SECONDS, 1, 3, 4, 4), np.uint8)
        return np.ascontiguousarray(np.broadcast_to(coarse.repeat(14, -1).repeat(14, -2), (SECONDS, 2, 3, *SIZE)))


@pytest.mark.slow
def test_ten_chunks_are_learned_and_told_again(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path / "tokenizer")
    tokenizer = Tokenizer(tmp_path / "tokenizer" / "tokenizer.json")
    config = random_config("qwen2_5_vl")
    config = dataclasses.replace(
        config,
        text=dataclasses.replace(config.text, num_layers=2),
        vision=dataclasses.replace(config.vision, depth=1, fullatt_block_indexes=(0,)),
    )
    ten = Ten(ChunkBuilder(tokenizer.encode, config, CHUNKS))
    mesh = sharding.make_mesh(MeshConfig(), jax.devices()[:1])
    partition, settings = Partition(freeze=()), OptimizerConfig(5e-3, warmup=0.1, beta2=0.98, clip_norm=1.0)
    optimizer = make_optimizer(settings, STEPS)
    step = Step(config, Compute(dtype="float32", remat="none", clips=0), partition, optimizer, mesh)
    sample = blank_sample(BUCKET, ten.frames)
    step.compile(jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((10, *leaf.shape), leaf.dtype), sample))
    state, frozen = init_state(init_flat(config, mesh, 0), partition, optimizer, mesh)
    losses: list[float] = []

    class Losses:
        def write(self, step: int, record: dict[str, float]) -> None:
            losses.append(record["loss"])

        def close(self) -> None: ...

    with (
        Pipeline([(ten, 1.0)], PipelineSettings(batch=10, buckets=(BUCKET,), window=1, threads=1)) as data,
        contextlib.closing(Checkpoints(tmp_path / "run", Identity(config, checksum(frozen), {}))) as checkpoints,
    ):
        loop = Loop(
            LoopConfig(steps=STEPS, save_every=0, eval_every=0),
            step,
            data,
            checkpoints,
            Reports([Losses()]),
            rate=schedule(settings, STEPS),
        )
        state, _ = loop.run(state, frozen)
        state, _ = checkpoints.restore(step.state)
    assert losses[0] > 4
    assert losses[-1] < 0.02, losses[::10]

    params = flat_params.to_model(merged(state.params, frozen, partition.lora))
    params = jax.device_put(jax.tree.map(np.asarray, params), jax.devices()[0])
    vlm = StreamingVLM(Checkpoint(config, params, tmp_path / "tokenizer", {}))
    exactly = Sampling(temperature=0, repetition_penalty=1.0, max_new_tokens=40)
    for number in range(10):
        stream = vlm.stream(system=CHUNKS.system, query=None, sampling=exactly)
        pictures = ten.pictures(number)
        told = [stream.feed(Chunk(pictures[second], float(second), second + 1.0)).text for second in range(SECONDS)]
        assert told == ten.words(number)
