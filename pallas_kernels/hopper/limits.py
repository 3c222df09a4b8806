"""What the Hopper kernels can take."""

import jax
import jax.numpy as jnp

from pallas_kernels import compat


def unsupported(*arrays: jax.Array, half: bool = False) -> str | None:
    """Why queries, keys and values (…, H) cannot be handled; None if they can. `half`: H / 2 is addressed too."""
    if (reason := compat.mosaic_gpu_missing() or compat.not_hopper()) is not None:
        return reason
    if (reason := not_half_precision(*arrays)) is not None:
        return reason
    dim = arrays[0].shape[-1]
    multiple = 32 if half else 16
    if dim % multiple or dim > 128:
        return f"a head dimension of {dim} is not a multiple of {multiple} up to 128"
    return None


def not_half_precision(*arrays: jax.Array) -> str | None:
    """Why tensor cores cannot multiply these arrays; None if they can."""
    dtypes = {x.dtype for x in arrays}
    if dtypes in ({jnp.dtype(jnp.bfloat16)}, {jnp.dtype(jnp.float16)}):
        return None
    found = ", ".join(sorted(map(str, dtypes)))
    return f"the tensor cores' kernels take bfloat16 or float16, the same for all of them, not {found}"
