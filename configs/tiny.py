"""A run of seconds on a CPU, for tests and for trying things out: a few thousand weights on four-second chunks of matches.

Needs a tokenizer: svlm_jax.checkpoint.random.write_random_checkpoint("runs/tiny-tokenizer") writes one.
"""

import dataclasses

from svlm_jax.checkpoint.random import random_config
from svlm_jax.data.chunks import Bucket, ChunkSettings
from svlm_jax.data.pipeline import PipelineSettings
from svlm_jax.models.config import ModelConfig
from svlm_jax.sharding import MeshConfig
from svlm_jax.synthetic.samples import MatchSettings
from svlm_jax.train.config import DataConfig, MatchSet, ModelSource, TrainConfig
from svlm_jax.train.forward import Compute
from svlm_jax.train.loop import LoopConfig
from svlm_jax.train.optimizer import OptimizerConfig

SIZE = (56, 56)
BUCKETS = (Bucket(640, 4, SIZE),)


def architecture() -> ModelConfig:
    cfg = random_config("qwen2_5_vl")
    text = dataclasses.replace(
        cfg.text, hidden_size=32, intermediate_size=64, num_layers=1, num_heads=2, num_kv_heads=2, head_dim=16
    )
    vision = dataclasses.replace(
        cfg.vision, depth=1, hidden_size=32, intermediate_size=32, num_heads=1, out_hidden_size=32, fullatt_block_indexes=(0,)
    )
    return dataclasses.replace(cfg, text=text, vision=vision)


def _matches(seed: int) -> DataConfig:
    match = MatchSet(seed, count=256, size=SIZE, settings=MatchSettings(seconds=4, history=30, hours=0, chunks=4, matches=2))
    pipeline = PipelineSettings(batch=4, buckets=BUCKETS, window=1, threads=1, ahead=1)
    return DataConfig((match,), pipeline, ChunkSettings(sink=16, tail=48))


def get_config() -> TrainConfig:
    return TrainConfig(
        name="tiny",
        model=ModelSource(architecture=architecture(), tokenizer="runs/tiny-tokenizer"),
        data=_matches(0),
        evaluation=_matches(1),
        mesh=MeshConfig(),
        compute=Compute(dtype="float32", remat="none", clips=0),
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup=0.1),
        loop=LoopConfig(steps=20, accumulate=2, eval_every=10, eval_batches=2, save_every=5),
    )
