"""StreamingVLM, stage 1: overlapped chunks of 24 s, as published (arXiv 2510.09608, section 3.1 and its released scripts).

512 samples a step: 8 of a micro-batch, one on each of 8 GPUs, times 64. Gradients are not clipped, as in the released runs.

The environment's DATASET_PATH names the folder, as in the released scripts: a download of mit-han-lab/Inf-Stream-Train that
holds the videos of chenjoya/Live-WhisperX-526K, without subfolders, in Livecc_sft. Files have their published names.
"""

import os

from svlm_jax.data.pipeline import PipelineSettings
from svlm_jax.sharding import MeshConfig
from svlm_jax.train.config import AnnotationSet, DataConfig, ModelSource, TrainConfig
from svlm_jax.train.loop import LoopConfig

from .shapes import buckets

BUCKETS = buckets(24)


def samples(name: str, weight: float = 1.0) -> AnnotationSet:
    """A file of annotations in the folder of the data set, which its videos are relative to."""
    folder = os.environ.get("DATASET_PATH", "data/Inf-Stream-Train")
    return AnnotationSet(f"{folder}/{name}_with_seeks.jsonl", folder, weight)


def get_config() -> TrainConfig:
    return TrainConfig(
        name="sft_stage1",
        model=ModelSource("Qwen/Qwen2.5-VL-7B-Instruct"),
        data=DataConfig(
            # The first one is listed twice in the released scripts.
            sets=(samples("train_s12w24", 2.0), samples("train_livecc")),
            pipeline=PipelineSettings(batch=8, buckets=BUCKETS, threads=16),
        ),
        evaluation=DataConfig(
            sets=(samples("valid_s12w24", 2.0), samples("valid_livecc")),
            pipeline=PipelineSettings(batch=8, buckets=BUCKETS, shuffle=False),
        ),
        mesh=MeshConfig(data=1, fsdp=8, tensor=1),
        loop=LoopConfig(epochs=1.0, accumulate=64, eval_every=100, save_every=20, keep=10),
    )
