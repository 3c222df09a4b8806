"""What steps need on each device, by compiling them for eight that do not exist."""

import jax
import pytest

from svlm_jax import sharding
from svlm_jax.data.chunks import Batch, Bucket, blank_sample
from svlm_jax.models.presets import preset
from svlm_jax.sharding import MeshConfig
from svlm_jax.train import flops
from svlm_jax.train.forward import Compute
from svlm_jax.train.memory import report
from svlm_jax.train.optimizer import OptimizerConfig, make_optimizer
from svlm_jax.train.state import Partition
from svlm_jax.train.step import Step
from tests.train import tiny

GB = 1e9


def _shapes(tokens: int, clips: int, rows: int = 8) -> Batch:
    sample = blank_sample(Bucket(tokens, clips, (560, 1008)), 2)
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((rows, *leaf.shape), leaf.dtype), sample)


@pytest.mark.slow
def test_7b_of_32k_tokens_fits_eight_gpus() -> None:
    """Qwen2.5-VL-7B, FSDP-8, one sample of 32,768 tokens and 24 s of 720p on each device, whole layers recomputed."""
    mesh = sharding.make_mesh(MeshConfig(1, 8, 1))
    step = Step(preset("qwen2.5-vl-7b"), Compute(), Partition(), make_optimizer(OptimizerConfig(), 1000), mesh)
    (usage,) = report(step, [_shapes(32_768, 24)])
    assert usage.shape == (8, 32_768)
    # float32 master weights, two moments and gradients of 7.6 B parameters in eight parts, and a whole bfloat16 tower
    assert usage.state == pytest.approx(16 * 7.615e9 / 8 + 2 * 0.677e9, rel=0.01)
    assert usage.working <= 45 * GB
    assert usage.total < 80 * GB


@pytest.mark.slow
def test_recomputing_saves_memory() -> None:
    batch = tiny.batch(tiny.config(layers=6), rows=2, tokens=512, clips=0)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), batch)
    mesh = sharding.make_mesh(MeshConfig(), jax.devices()[:1])
    working = {}
    for remat in ("full", "none"):
        compute = Compute(dtype="float32", remat=remat)
        step = Step(tiny.config(layers=6), compute, Partition(), make_optimizer(OptimizerConfig(), 10), mesh)
        working[remat] = report(step, [shapes])[0].working
    assert working["full"] < 0.7 * working["none"]


def test_operations_are_those_of_the_published_sum() -> None:
    """7 B at 32,768 tokens: 62 GFLOP a token, of which 20 attention, in the convention that this project states."""
    cfg, tokens = preset("qwen2.5-vl-7b"), 32_768
    text_only = flops.count(cfg, Partition(), _shapes(tokens, 0, rows=1)) / tokens
    assert text_only == pytest.approx(62.2e9, rel=0.02)
    seen = flops.count(cfg, Partition(), _shapes(tokens, 24, rows=1)) / tokens - text_only
    trained = flops.count(cfg, Partition(freeze=()), _shapes(tokens, 24, rows=1)) / tokens - text_only
    assert 0 < seen < 0.1 * text_only
    assert trained == pytest.approx(3 * seen)
