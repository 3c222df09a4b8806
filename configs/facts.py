"""The model that recalls facts: which sign was on the flag that a clip of 8 to 128 s showed? 0.8 M parameters, two CPU cores.

`python -m launch.embedded --model embedded-facts` trains it. Alone it needs a tokenizer:
python -c "from svlm_jax.synthetic.facts_tokenizer import write_facts_tokenizer as w; w('runs/facts-tokenizer')"
"""

from collections.abc import Mapping

from svlm_jax.data.chunks import Bucket, ChunkSettings
from svlm_jax.data.pipeline import PipelineSettings
from svlm_jax.models.config import ModelConfig, TextConfig
from svlm_jax.models.qwen2_vl.config import QwenVisionConfig
from svlm_jax.sharding import MeshConfig
from svlm_jax.synthetic.facts import EVERY
from svlm_jax.synthetic.facts_render import SIDE
from svlm_jax.synthetic.facts_samples import FactSettings
from svlm_jax.synthetic.facts_tokenizer import VOCAB_SIZE
from svlm_jax.synthetic.tokenizer import token_id
from svlm_jax.train.config import DataConfig, FactSet, ModelSource, TrainConfig
from svlm_jax.train.forward import Compute
from svlm_jax.train.loop import LoopConfig
from svlm_jax.train.optimizer import OptimizerConfig
from svlm_jax.train.state import Partition

# Temporal grids of a clip, of 4 s each: alone, among a few, and among many. How long its dialogue gets, and its weight.
SHORT, MIDDLE, LONG = 2, 8, 32
TOKENS = {SHORT: 48, MIDDLE: 176, LONG: 392}
WEIGHTS = {SHORT: 1.0, MIDDLE: 1.0, LONG: 2.0}
SIZE = (SIDE, SIDE)


def architecture() -> ModelConfig:
    text = TextConfig(
        vocab_size=-(-VOCAB_SIZE // 64) * 64,
        hidden_size=128,
        intermediate_size=256,
        num_layers=3,
        num_heads=4,
        num_kv_heads=2,
        head_dim=32,
        mrope_section=(6, 5, 5),
    )
    # A temporal grid of 4 s is one position: an hour is 900 of them.
    vision = QwenVisionConfig(
        depth=2, hidden_size=64, intermediate_size=128, num_heads=4, out_hidden_size=128, tokens_per_second=0.25
    )
    return ModelConfig(
        family="qwen2_5_vl",
        text=text,
        vision=vision,
        image_token_id=token_id("<|image_pad|>"),
        video_token_id=token_id("<|video_pad|>"),
        vision_start_token_id=token_id("<|vision_start|>"),
        vision_end_token_id=token_id("<|vision_end|>"),
    )


def _data(seed: int, weights: Mapping[int, float]) -> DataConfig:
    """Clips of so many temporal grids, in such proportions."""
    buckets = tuple(Bucket(TOKENS[grids], grids, SIZE) for grids in weights)
    sets = tuple(
        FactSet(seed + i, settings=FactSettings(2 * grids, sparse=EVERY), weight=weight)
        for i, (grids, weight) in enumerate(weights.items())
    )
    pipeline = PipelineSettings(batch=16, buckets=buckets, window=1, threads=1, ahead=4)
    return DataConfig(sets, pipeline, ChunkSettings(fps=0.5, chunk_seconds=4.0))


def get_config() -> TrainConfig:
    return TrainConfig(
        name="facts",
        model=ModelSource(architecture=architecture(), tokenizer="runs/facts-tokenizer"),
        data=_data(0, WEIGHTS),
        evaluation=_data(10, {LONG: 1.0}),
        mesh=MeshConfig(),
        compute=Compute(dtype="float32", remat="none", clips=0),
        partition=Partition(freeze=()),
        optimizer=OptimizerConfig(learning_rate=2e-3, warmup=0.05, beta2=0.98, clip_norm=1.0),
        loop=LoopConfig(steps=1400, eval_every=200, eval_batches=4, save_every=200),
    )
