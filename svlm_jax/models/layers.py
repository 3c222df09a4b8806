"""The pieces that towers and decoder are made of. Modules hold `nnx.Param` and static fields, and mutate nothing."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike

from pallas_kernels import rms_norm as kernels
from svlm_jax.models.adapted import Adapted
from svlm_jax.models.quant import QuantArray


def scaled_normal(key: jax.Array, shape: tuple[int, ...], fan_in: int, dtype: DTypeLike) -> jax.Array:
    """Normal with deviation 1 / sqrt(fan_in), which keeps the scale of what passes through (LeCun et al. 1998)."""
    return (jax.random.normal(key, shape, jnp.float32) * fan_in**-0.5).astype(dtype)


def precision(dtype: DTypeLike) -> lax.Precision:
    """float32 means float32: accelerators otherwise multiply it in TF32 or bfloat16."""
    return lax.Precision.HIGHEST if dtype == jnp.float32 else lax.Precision.DEFAULT


def rms_norm(x: jax.Array, weight: jax.Array, eps: float) -> jax.Array:
    """x (..., D) over its root mean square, computed in float32 and returned in x's dtype (Zhang & Sennrich 2019)."""
    # XLA for GPUs makes one kernel of this for several rows, and two for a single one: a decoded token's.
    one_row = x.size == x.shape[-1]
    return kernels.rms_norm(x, weight, eps=eps, implementation="auto" if one_row else "xla")


def layer_norm(x: jax.Array, weight: jax.Array, bias: jax.Array, eps: float) -> jax.Array:
    """x (..., D) with mean 0 and variance 1, computed in float32 and returned in x's dtype (Ba et al. 2016)."""
    wide = x.astype(jnp.float32)
    centred = wide - jnp.mean(wide, -1, keepdims=True)
    wide = centred * lax.rsqrt(jnp.mean(centred * centred, -1, keepdims=True) + eps)
    return (wide * weight.astype(jnp.float32) + bias.astype(jnp.float32)).astype(x.dtype)


def quick_gelu(x: jax.Array) -> jax.Array:
    """x · sigmoid(1.702 x), the approximation that CLIP and Qwen2-VL's vision blocks were trained with."""
    return x * jax.nn.sigmoid(1.702 * x)


def _product(x: jax.Array, weight: jax.Array | QuantArray | Adapted) -> jax.Array:
    """x (..., in) times a weight (in, out), in x's dtype, as a product of two matrices.

    XLA for CPUs takes twice the time for the gradients of one with more axes. Shardings are stated because axes are merged,
    and because devices that share the inputs of a weight add up their parts.
    """
    return _wide_product(x, weight).astype(x.dtype)


def _wide_product(x: jax.Array, weight: jax.Array | QuantArray | Adapted) -> jax.Array:
    """`_product` before it is rounded: float32."""
    if isinstance(weight, Adapted):
        # Added before rounding: a change far smaller than the output's last bit would otherwise never be seen.
        return _wide_product(x, weight.weight) + weight.scale * _wide_product(_product(x, weight.down), weight.up)
    if isinstance(weight, QuantArray):
        y = jnp.matmul(x, weight.values.astype(x.dtype), precision=precision(x.dtype), preferred_element_type=jnp.float32)
        return y * weight.scale
    rows, width = jax.typeof(x).sharding.spec[:-1], jax.typeof(x).sharding.spec[-1]
    inputs, outputs = jax.typeof(weight).sharding.spec.partitions
    merge = x.ndim > 2 and all(axis is None for axis in rows[1:])
    if merge:
        merged = lax.reshape(x, (math.prod(x.shape[:-1]), x.shape[-1]), out_sharding=_stated(rows[0], width))
        spec = _stated(rows[0], outputs)
    else:
        merged, spec = x, _stated(*rows, outputs)
    # XLA for CPUs has a bfloat16 product only for float32 results: a third of the time of its detour over float32 inputs.
    options = {"precision": precision(weight.dtype), "preferred_element_type": jnp.float32}
    y = jnp.matmul(merged, weight, out_sharding=None if inputs is None else spec, **options)
    return lax.reshape(y, (*x.shape[:-1], weight.shape[1]), out_sharding=_stated(*rows, outputs)) if merge else y


def _stated(*axes: Any) -> jax.P | None:
    """None where nothing is sharded: without a mesh there is nothing to state."""
    return None if all(axis is None for axis in axes) else jax.P(*axes)


class Linear(nnx.Module):
    """x (..., in) -> (..., out); the weight is stored (in, out)."""

    def __init__(self, width_in: int, width_out: int, *, bias: bool, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.weight = nnx.Param(scaled_normal(rngs.params(), (width_in, width_out), width_in, dtype))
        self.bias = nnx.Param(jnp.zeros((width_out,), dtype)) if bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        y = _product(x, self.weight[...])
        return y if self.bias is None else y + self.bias[...]


def columns(y: jax.Array, groups: int, widths: tuple[int, ...]) -> tuple[jax.Array, ...]:
    """The outputs of a fused product (..., groups · sum(widths)) -> one array (..., groups, width) for each of its parts.

    Parts alternate group by group, | q0 k0 v0 | q1 k1 v1 | ..., so that a device that holds whole groups holds whole parts.
    """
    *rows, outputs = jax.typeof(y).sharding.spec
    y = lax.reshape(y, (*y.shape[:-1], groups, sum(widths)), out_sharding=_stated(*rows, outputs, None))
    starts = [sum(widths[:i]) for i in range(len(widths))]
    return tuple(y[..., start : start + width] for start, width in zip(starts, widths, strict=True))


def joined(y: jax.Array) -> jax.Array:
    """One part of `columns`, (..., groups, width), as a row of numbers again: (..., groups · width)."""
    *rows, groups, _ = jax.typeof(y).sharding.spec
    return lax.reshape(y, (*y.shape[:-2], y.shape[-2] * y.shape[-1]), out_sharding=_stated(*rows, groups))


def heads(y: jax.Array, width: int) -> jax.Array:
    """Queries as they lie beside their key head (..., K, G · width) -> (..., K · G, width)."""
    *rows, groups, _ = jax.typeof(y).sharding.spec
    shape = (*y.shape[:-2], y.shape[-2] * (y.shape[-1] // width), width)
    return lax.reshape(y, shape, out_sharding=_stated(*rows, groups, None))


class RMSNorm(nnx.Module):
    def __init__(self, width: int, *, eps: float, dtype: DTypeLike) -> None:
        self.weight = nnx.Param(jnp.ones((width,), dtype))
        self.eps = eps

    def __call__(self, x: jax.Array) -> jax.Array:
        return rms_norm(x, self.weight[...], self.eps)


class LayerNorm(nnx.Module):
    def __init__(self, width: int, *, eps: float, dtype: DTypeLike) -> None:
        self.weight = nnx.Param(jnp.ones((width,), dtype))
        self.bias = nnx.Param(jnp.zeros((width,), dtype))
        self.eps = eps

    def __call__(self, x: jax.Array) -> jax.Array:
        return layer_norm(x, self.weight[...], self.bias[...], self.eps)


class SwiGLU(nnx.Module):
    """down(silu(gate(x)) · up(x)) (Shazeer 2020); gate and up are one product, whose columns alternate in `groups` blocks."""

    def __init__(self, width: int, hidden: int, *, bias: bool, groups: int = 1, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.gate_up = Linear(width, 2 * hidden, bias=bias, dtype=dtype, rngs=rngs)
        self.down = Linear(hidden, width, bias=bias, dtype=dtype, rngs=rngs)
        self.groups = groups

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.gate_up(x)
        width = y.shape[-1] // (2 * self.groups)
        gate, up = columns(y, self.groups, (width, width))
        return self.down(joined(jax.nn.silu(gate) * up))


class MLP(nnx.Module):
    """fc2(activation(fc1(x)))."""

    def __init__(
        self,
        width_in: int,
        hidden: int,
        width_out: int,
        *,
        activation: Callable[[jax.Array], jax.Array],
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        self.fc1 = Linear(width_in, hidden, bias=True, dtype=dtype, rngs=rngs)
        self.fc2 = Linear(hidden, width_out, bias=True, dtype=dtype, rngs=rngs)
        self.activation = activation

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.fc2(self.activation(self.fc1(x)))


class Embedding(nnx.Module):
    """A table (V, D) of token embeddings; also the output head of models that tie the two."""

    def __init__(self, size: int, width: int, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.weight = nnx.Param(scaled_normal(rngs.params(), (size, width), width, dtype))

    def __call__(self, tokens: jax.Array) -> jax.Array:
        return self.weight[...][tokens]
