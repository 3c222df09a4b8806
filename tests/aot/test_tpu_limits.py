"""What is too large for a TPU's on-chip memory is rejected when it is compiled, not when it runs."""

import functools

import jax
import jax.numpy as jnp
import pytest

from benchmarks.aot import target
from pallas_kernels.tpu.forward import attend

ARRAYS = [
    *(jax.ShapeDtypeStruct((1, 1, n, 128), jnp.bfloat16) for n in (4096, 8192, 8192)),
    *(jax.ShapeDtypeStruct((1, n), jnp.int32) for n in (4096, 8192)),
]


@pytest.mark.skipif(bool(target.missing("v5e")), reason=str(target.missing("v5e")))
@pytest.mark.filterwarnings("ignore:.*")  # libtpu warns in many ways that it finds no TPU
def test_blocks_larger_than_on_chip_memory():
    """1,024 rows by 2,048 keys are 8 MiB of scores, and as many weights, masks and exponentials; the limit is 16 MiB."""
    target.compile_for("v5e", functools.partial(attend, scale=0.1), *ARRAYS)
    too_large = functools.partial(attend, scale=0.1, block_rows=1024, block_keys=2048)
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED"):
        target.compile_for("v5e", too_large, *ARRAYS)
