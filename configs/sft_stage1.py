"""StreamingVLM, stage 1: overlapped chunks of 24 s, as published (arXiv 2510.09608, section 3.1 and its released scripts).

512 samples a step: 8 of a micro-batch, one on each of 8 GPUs, times 64. Gradients are not clipped, as in the released runs.
"""

from configs.shapes import bucket
from svlm_jax.data.pipeline import PipelineSettings
from svlm_jax.train.config import AnnotationSet, DataConfig, ModelSource, TrainConfig
from svlm_jax.train.loop import LoopConfig
from svlm_jax.train.sharding import MeshConfig

BUCKETS = (bucket("360p", 24), bucket("480p", 24), bucket("720p", 24))


def get_config() -> TrainConfig:
    return TrainConfig(
        name="sft_stage1",
        model=ModelSource("Qwen/Qwen2.5-VL-7B-Instruct"),
        data=DataConfig(
            sets=(
                # Listed twice in the released scripts.
                AnnotationSet("data/Inf-Streams-Train/train_s12w24_with_seeks.jsonl", "data", weight=2.0),
                AnnotationSet("data/Livecc_sft/train_livecc_with_seeks.jsonl", "data"),
            ),
            pipeline=PipelineSettings(batch=8, buckets=BUCKETS, threads=16),
        ),
        evaluation=DataConfig(
            sets=(AnnotationSet("data/Inf-Streams-Train/eval_s12w24_with_seeks.jsonl", "data"),),
            pipeline=PipelineSettings(batch=8, buckets=BUCKETS, shuffle=False),
        ),
        mesh=MeshConfig(data=1, fsdp=8, tensor=1),
        loop=LoopConfig(epochs=1.0, accumulate=64, eval_every=100, save_every=20, keep=10),
    )
