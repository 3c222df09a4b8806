"""The pieces that towers and decoder are made of. Modules hold `nnx.Param` and static fields, and mutate nothing."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike


def scaled_normal(key: jax.Array, shape: tuple[int, int], fan_in: int, dtype: DTypeLike) -> jax.Array:
    """Normal with deviation 1 / sqrt(fan_in), which keeps the scale of what passes through (LeCun et al. 1998)."""
    return (jax.random.normal(key, shape, jnp.float32) * fan_in**-0.5).astype(dtype)


def precision(dtype: DTypeLike) -> lax.Precision:
    """float32 means float32: accelerators otherwise multiply it in TF32 or bfloat16."""
    return lax.Precision.HIGHEST if dtype == jnp.float32 else lax.Precision.DEFAULT


def rms_norm(x: jax.Array, weight: jax.Array, eps: float) -> jax.Array:
    """x (..., D) over its root mean square, computed in float32 and returned in x's dtype (Zhang & Sennrich 2019)."""
    wide = x.astype(jnp.float32)
    wide = wide * lax.rsqrt(jnp.mean(wide * wide, -1, keepdims=True) + eps)
    return wide.astype(x.dtype) * weight


def layer_norm(x: jax.Array, weight: jax.Array, bias: jax.Array, eps: float) -> jax.Array:
    """x (..., D) with mean 0 and variance 1, computed in float32 and returned in x's dtype (Ba et al. 2016)."""
    wide = x.astype(jnp.float32)
    centred = wide - jnp.mean(wide, -1, keepdims=True)
    wide = centred * lax.rsqrt(jnp.mean(centred * centred, -1, keepdims=True) + eps)
    return (wide * weight.astype(jnp.float32) + bias.astype(jnp.float32)).astype(x.dtype)


def quick_gelu(x: jax.Array) -> jax.Array:
    """x · sigmoid(1.702 x), the approximation that CLIP and Qwen2-VL's vision blocks were trained with."""
    return x * jax.nn.sigmoid(1.702 * x)


def _summed(x: jax.Array, weight: jax.Array) -> jax.P | None:
    """Where devices share the inputs of a weight, their parts of the product are summed: only then is a sharding stated."""
    inputs, outputs = jax.typeof(weight).sharding.spec
    return None if inputs is None else jax.P(*jax.typeof(x).sharding.spec[:-1], outputs)


class Linear(nnx.Module):
    """x (..., in) -> (..., out); the weight is stored (in, out)."""

    def __init__(self, width_in: int, width_out: int, *, bias: bool, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.weight = nnx.Param(scaled_normal(rngs.params(), (width_in, width_out), width_in, dtype))
        self.bias = nnx.Param(jnp.zeros((width_out,), dtype)) if bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        weight = self.weight[...]
        # XLA for CPUs has a bfloat16 product only for float32 results: a third of the time of its detour over float32 inputs.
        options = {"precision": precision(weight.dtype), "preferred_element_type": jnp.float32}
        y = jnp.matmul(x, weight, out_sharding=_summed(x, weight), **options).astype(x.dtype)
        return y if self.bias is None else y + self.bias[...]


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
    """down(silu(gate(x)) · up(x)) (Shazeer 2020)."""

    def __init__(self, width: int, hidden: int, *, bias: bool, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.gate = Linear(width, hidden, bias=bias, dtype=dtype, rngs=rngs)
        self.up = Linear(width, hidden, bias=bias, dtype=dtype, rngs=rngs)
        self.down = Linear(hidden, width, bias=bias, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.down(jax.nn.silu(self.gate(x)) * self.up(x))


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
