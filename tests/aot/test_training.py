"""Training steps compile for four devices that this machine lacks, and attend by the kernels that `auto` stands for there.

On an H200 that is cuDNN when there is one: jax asks a GPU before it writes cuDNN's attention into a program. Compiled without
one, as here, it is our own kernel.
"""

import collections
import dataclasses
import re

import jax
import pytest

from benchmarks.aot import kernels as aot_kernels
from benchmarks.aot import target
from svlm_jax import sharding
from svlm_jax.data.chunks import Bucket, blank_sample
from svlm_jax.sharding import MeshConfig
from svlm_jax.train.forward import Compute
from svlm_jax.train.optimizer import OptimizerConfig, make_optimizer
from svlm_jax.train.state import Partition
from svlm_jax.train.step import Step
from tests.train import tiny


def calls(on, remat):
    """How often each Pallas kernel is in the step's program; parameters are cut over four devices, layers scanned."""
    cfg = tiny.config()
    text = dataclasses.replace(cfg.text, hidden_size=256, num_heads=4, num_kv_heads=2, head_dim=128, mrope_section=(16, 24, 24))
    cfg = dataclasses.replace(cfg, text=text, vision=dataclasses.replace(cfg.vision, out_hidden_size=256))
    devices = target.devices(on)
    mesh = sharding.make_mesh(MeshConfig(1, len(devices), 1), devices)
    step = Step(cfg, Compute(remat=remat), Partition(), make_optimizer(OptimizerConfig(), 10), mesh)
    sample = blank_sample(Bucket(1024, 1, (56, 56)), 2)
    batch = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((len(devices), *leaf.shape), leaf.dtype), sample)
    program = step.compile(batch).as_text()
    names = re.findall(r'%([a-z_]+)[\w.]* = .*custom-call\(.*custom_call_target="(?:tpu_custom_call|mosaic_gpu_v2)"', program)
    return collections.Counter(names)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*")  # the compilers warn in many ways that they find no device
@pytest.mark.parametrize("on", ["v5e", "h200"])
@pytest.mark.parametrize(("remat", "forward"), [("full", 2), ("attention", 1)])
def test_a_step_on_four_devices(on, remat, forward):
    """Recomputed layers run attention twice; where its results are saved, once."""
    if reason := aot_kernels.missing(on):
        pytest.skip(reason)
    found = calls(on, remat)
    if on == "h200":  # its kernels bear no names: forward, two of the backward pass, and the vision tower's
        assert found.total() == forward + 2 + 1, found
    else:
        backward = {"splash_mha_dq_no_residuals": 1, "splash_mha_dkv_no_residuals": 1}
        assert found == {"splash_mha_fwd_residuals": forward, **backward, "attention": 1}
