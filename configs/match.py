"""The embedded model: a Qwen2.5-VL of 2.6 M parameters that learns to commentate on matches from nothing, on two CPU cores.

Needs its tokenizer: python -c "from svlm_jax.synthetic.tokenizer import write_tokenizer as w; w('runs/match-tokenizer')"
"""

from svlm_jax.data.chunks import Bucket, ChunkSettings
from svlm_jax.data.pipeline import PipelineSettings
from svlm_jax.models.config import ModelConfig, TextConfig
from svlm_jax.models.qwen2_vl.config import QwenVisionConfig
from svlm_jax.sharding import MeshConfig
from svlm_jax.synthetic.samples import MatchSettings
from svlm_jax.synthetic.tokenizer import VOCAB_SIZE, token_id
from svlm_jax.synthetic.world import HEIGHT, WIDTH
from svlm_jax.train.config import DataConfig, MatchSet, ModelSource, TrainConfig
from svlm_jax.train.forward import Compute
from svlm_jax.train.loop import LoopConfig
from svlm_jax.train.optimizer import OptimizerConfig
from svlm_jax.train.state import Partition

SIZE = (HEIGHT, WIDTH)
SECONDS, BLIND = 24, 165  # of chunks with pictures and of those without
CHUNKS = ChunkSettings(sink=8, tail=96)
BUCKETS = (Bucket(992, SECONDS, SIZE), Bucket(992, 0, SIZE))


def architecture() -> ModelConfig:
    text = TextConfig(
        vocab_size=-(-VOCAB_SIZE // 64) * 64,
        hidden_size=192,
        intermediate_size=512,
        num_layers=4,
        num_heads=4,
        num_kv_heads=2,
        head_dim=48,
        mrope_section=(8, 8, 8),
    )
    vision = QwenVisionConfig(
        depth=2, hidden_size=128, intermediate_size=352, num_heads=4, out_hidden_size=192, tokens_per_second=2.0
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


def _data(*sets: MatchSet) -> DataConfig:
    return DataConfig(sets, PipelineSettings(batch=8, buckets=BUCKETS, window=1, threads=1, ahead=4), CHUNKS)


def get_config() -> TrainConfig:
    return TrainConfig(
        name="match",
        model=ModelSource(architecture=architecture(), tokenizer="runs/match-tokenizer"),
        # A step is eight chunks that are seen and eight from which only scores are learned: these are counted, not seen.
        data=_data(
            MatchSet(0, settings=MatchSettings(seconds=SECONDS)),
            MatchSet(1, settings=MatchSettings(seconds=BLIND, blind=True)),
        ),
        # Without the mistakes that make a model robust against its own.
        evaluation=_data(MatchSet(2, settings=MatchSettings(seconds=SECONDS, swapped=0, lost=0, misremembered=0))),
        mesh=MeshConfig(),
        compute=Compute(dtype="float32", remat="none", clips=0),
        partition=Partition(freeze=()),
        optimizer=OptimizerConfig(learning_rate=1.5e-3, warmup=0.02, beta2=0.98, clip_norm=1.0),
        loop=LoopConfig(steps=1300, accumulate=2, eval_every=100, eval_batches=4, save_every=50),
    )
