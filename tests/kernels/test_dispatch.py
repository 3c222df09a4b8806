"""Which implementation runs: `auto` by platform at lowering, a named one or an error."""

import functools
import logging
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.mesh import AbstractDevice
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from pallas_kernels import dispatch
from pallas_kernels.cache_attention import cache_attention
from pallas_kernels.decode_attention import decode_attention
from pallas_kernels.flash_attention import flash_attention
from pallas_kernels.pooled_scores import pooled_scores
from pallas_kernels.rms_norm import rms_norm
from pallas_kernels.shapes import cases
from pallas_kernels.window_attention import window_attention

B, T, C, N, K, H = 1, 4, 128, 4, 2, 128
KERNELS = {
    "cache_attention": lambda name, q, k, order, slots: cache_attention(q, k, k, order, slots, scale=1.0, implementation=name),
    "flash_attention": lambda name, q, *_: flash_attention(q, q[:, :, :K], q[:, :, :K], scale=1.0, implementation=name),
    "window_attention": lambda name, q, *_: window_attention(q[0], q[0], q[0], segments=(T,), scale=1.0, implementation=name),
    "pooled_scores": lambda name, q, k, order, slots: pooled_scores(q, k, order, slots, scale=1.0, implementation=name),
    "decode_attention": lambda name, q, k, order, slots: decode_attention(
        q[:, :1],
        *(k[:, :, 0][:, None],) * 2,
        k,
        k,
        k,
        order[:, -1:],
        order[:, -1:],
        slots,
        *(jnp.ones((B, 1, H // 2)),) * 2,
        scale=1.0,
        implementation=name,
    )[0],
    "rms_norm": lambda name, q, *_: rms_norm(q.reshape(B, T, -1), jnp.ones(N * H, q.dtype), eps=1e-6, implementation=name),
}


def arrays(dtype=jnp.bfloat16, dim=H):
    query, keys = (jax.random.normal(jax.random.key(0), s, dtype) for s in ((B, T, N, dim), (B, K, C, dim)))
    return query, keys, jnp.arange(C - T, C)[None], jnp.arange(C)[None]


def described(platform):
    """A mesh of one device that is not there: lowering asks for its kind."""
    kind = {"tpu": "TPU v5 lite", "cuda": "NVIDIA H200", "cpu": "cpu"}[platform]
    return AbstractMesh((1,), ("x",), (AxisType.Explicit,), abstract_device=AbstractDevice(kind, 1, platform))


def calls(kernel, name, platform, *tensors):
    """Names of the custom calls in the program lowered for a platform."""
    with jax.sharding.use_abstract_mesh(described(platform)):
        lowered = jax.jit(functools.partial(KERNELS[kernel], name)).trace(*tensors).lower(lowering_platforms=(platform,))
    return set(re.findall(r"custom_call @([\w$.]+)", lowered.as_text()))


def test_every_kernel_is_tested():
    assert tuple(KERNELS) == dispatch.KERNELS
    assert {case.kernel for case in cases()} == set(KERNELS)


@pytest.mark.parametrize("kernel", KERNELS)
def test_auto_is_decided_at_lowering(kernel):
    # On a TPU, a decoded token's attention is that of `cache_attention`, and a norm is XLA's.
    assert ("tpu_custom_call" in calls(kernel, "auto", "tpu", *arrays())) == (kernel != "rms_norm")
    assert not calls(kernel, "auto", "cpu", *arrays())
    on_gpu = calls(kernel, "auto", "cuda", *arrays())
    if (chosen := dispatch.preferred(kernel, "cuda")) == "xla":
        assert not on_gpu
    else:
        assert any({"mosaic_gpu": "mosaic_gpu", "cudnn": "cudnn"}[chosen] in call for call in on_gpu)


@pytest.mark.parametrize("kernel", KERNELS)
def test_auto_on_a_cpu_is_xla_bit_for_bit(kernel):
    auto, xla = (jax.jit(functools.partial(KERNELS[kernel], name))(*arrays()) for name in ("auto", "xla"))
    np.testing.assert_array_equal(auto.astype(jnp.float32), xla.astype(jnp.float32))


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_kernel_does_not_run_on_another_platform(kernel):
    reason = ".* platform other than tpu" if dispatch.implementations(kernel, "tpu") else "there is no mosaic_tpu kernel of it"
    with pytest.raises(NotImplementedError, match=f"{kernel} cannot run as 'mosaic_tpu': {reason}"):
        jax.jit(functools.partial(KERNELS[kernel], "mosaic_tpu"))(*arrays())


@pytest.mark.parametrize("kernel", KERNELS)
def test_unknown_names(kernel):
    with pytest.raises(ValueError, match="implementation is 'triton', expected one of"):
        KERNELS[kernel]("triton", *arrays())


def test_shapes_and_dtypes_a_kernel_does_not_take():
    with pytest.raises(NotImplementedError, match="a multiple of 64, not 24"):
        KERNELS["cache_attention"]("mosaic_tpu", *arrays(dim=24))
    with pytest.raises(NotImplementedError, match="not float16"):
        KERNELS["cache_attention"]("mosaic_tpu", *arrays(jnp.float16))
    assert not calls("cache_attention", "auto", "tpu", *arrays(dim=24))


def test_auto_says_once_what_it_chose_and_why(caplog):
    dispatch._say_once.cache_clear()
    with caplog.at_level(logging.INFO, "pallas_kernels"):
        for _ in range(2):
            calls("cache_attention", "auto", "cpu", *arrays(dim=24))
    (line,) = caplog.messages
    assert (
        "cache_attention, auto: tpu: xla, not mosaic_tpu: it needs a head dimension that is a multiple of 64, not 24;" in line
    )


@pytest.mark.skipif(jax.__version_info__ >= (0, 11, 1), reason="this jax has what the GPU kernels need")
def test_old_jax_has_no_gpu_kernels():
    with pytest.raises(NotImplementedError, match=r"mosaic_gpu.*need jax 0\.11\.1 or newer"):
        KERNELS["cache_attention"]("mosaic_gpu", *arrays())


def test_sharded_arrays_take_xla():
    """Kernels are not cut by the compiler; under a mesh with explicit axes, `auto` runs XLA and a named kernel is refused."""
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        spread = jax.device_put(jnp.ones((2, 8, N, H)), PartitionSpec("data"))
        attend = functools.partial(flash_attention, spread, spread, spread, scale=1.0)
        gradients = jax.jit(jax.grad(lambda *qkv: flash_attention(*qkv, scale=1.0).sum(), (0, 1, 2)))(spread, spread, spread)
        assert all(jax.typeof(x).sharding.spec[0] == "data" and np.isfinite(x).all() for x in gradients)
        with pytest.raises(NotImplementedError, match=r"inside jax\.shard_map"):
            attend(implementation="mosaic_tpu")
