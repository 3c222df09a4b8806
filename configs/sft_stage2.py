"""StreamingVLM, stage 2 (annealing): clips of 16 to 64 s with hardly a silence, on top of stage 1, same hyper-parameters."""

import dataclasses

from svlm_jax.data.pipeline import PipelineSettings
from svlm_jax.train.config import DataConfig, ModelSource, TrainConfig

from . import sft_stage1
from .shapes import buckets

BUCKETS = buckets(24, 40, 64)


def get_config() -> TrainConfig:
    return dataclasses.replace(
        sft_stage1.get_config(),
        name="sft_stage2",
        # Written by `svlm train sft_stage1 --export checkpoints/sft_stage1`.
        model=ModelSource("checkpoints/sft_stage1"),
        data=DataConfig(
            sets=(sft_stage1.samples("fg/train_fg"),),
            pipeline=PipelineSettings(batch=8, buckets=BUCKETS, threads=16),
        ),
        evaluation=DataConfig(
            sets=(sft_stage1.samples("fg/valid_fg"),),
            pipeline=PipelineSettings(batch=8, buckets=BUCKETS, shuffle=False),
        ),
    )
