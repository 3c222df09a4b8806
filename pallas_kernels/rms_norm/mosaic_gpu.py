"""`rms_norm` for NVIDIA GPUs: one warpgroup a row, which stays in registers between the sum and the product."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from pallas_kernels import compat
from pallas_kernels.hopper.device import Machine, strided

MOST = 16_384  # numbers of a row that the registers of a warpgroup hold


def unsupported(x: jax.Array, weight: jax.Array, **_: Any) -> str | None:
    """Why the kernel cannot run on these arrays; None if it can."""
    if (reason := compat.not_hopper()) is not None:
        return reason
    if x.dtype != weight.dtype or x.dtype not in (jnp.bfloat16, jnp.float32):
        return f"it takes bfloat16 or float32, one dtype for both, not {x.dtype} and {weight.dtype}"
    if x.shape[-1] % 256 or x.shape[-1] > MOST:
        return f"a row of {x.shape[-1]} numbers is not a multiple of 256 up to {MOST}"
    return None


def rms_norm(x: jax.Array, weight: jax.Array, *, eps: float, interpret: Any = None) -> jax.Array:
    """See `api.rms_norm`."""
    machine, rows = Machine(interpret), x.reshape(-1, x.shape[-1])
    out = machine.kernel(
        functools.partial(_program, eps=eps, machine=machine),
        out_type=jax.ShapeDtypeStruct(rows.shape, x.dtype),
        grid=(len(rows),),
        grid_names=("row",),
        num_threads=1,
        thread_name="warpgroup",
    )(rows, weight)
    return out.reshape(x.shape)


def _program(x: Any, weight: Any, out: Any, *, eps: float, machine: Machine) -> None:
    row, layout = lax.axis_index("row"), strided(x.shape[-1])
    wide = machine.load(x.at[row], layout).astype(jnp.float32)
    scale = lax.rsqrt(jnp.sum(wide * wide) / x.shape[-1] + eps)
    out[row] = (wide * scale).astype(out.dtype) * machine.load(weight, layout)
