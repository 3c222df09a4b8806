"""The simulator of a TPU that the suites use finds a race when there is one."""

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from tests.kernels.implementations import race_found


@pytest.mark.parametrize("waits", [True, False])
def test_a_copy_that_is_read_before_it_ends(waits):
    def kernel(x, out, scratch, done):
        copy = pltpu.make_async_copy(x, scratch, done)
        copy.start()
        if waits:
            copy.wait()
        out[...] = scratch[...]
        if not waits:
            copy.wait()

    x = jnp.ones((8, 128))
    call = pl.pallas_call(
        kernel,
        in_specs=[pl.BlockSpec(memory_space=pl.ANY)],
        out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype),
        scratch_shapes=[pltpu.VMEM(x.shape, x.dtype), pltpu.SemaphoreType.DMA],
        interpret=pltpu.InterpretParams(detect_races=True),
    )
    try:
        jax.block_until_ready(call(x))
        found = race_found("races")
    except jax.errors.JaxRuntimeError as error:  # newer versions of jax raise at once
        found = "RACE DETECTED" in str(error)
    assert found == (not waits)
