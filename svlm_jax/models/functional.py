"""The one place where Flax modules become pure functions of arrays.

Parameters are a plain nested dict of arrays with string keys; nothing else of a module ever crosses `jax.jit`. Layers are
numbered by their keys: {"decoder": {"layers": {"0": ..., "1": ...}}}.
"""

import functools
from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from svlm_jax.models import registry
from svlm_jax.models.config import ModelConfig
from svlm_jax.models.decoder import Layer
from svlm_jax.models.vlm import VLM, Tower

Params: TypeAlias = dict[str, Any]


@functools.lru_cache(maxsize=32)
def _skeleton(cfg: ModelConfig) -> tuple[nnx.GraphDef, Any]:
    """The structure of the module, and a dict of float32 shapes that its parameters have."""
    build = registry.record(cfg).module
    graphdef, state = nnx.split(nnx.eval_shape(lambda: build(cfg, dtype=jnp.float32, rngs=nnx.Rngs(0))))
    return graphdef, nnx.to_pure_dict(state)


def abstract_params(cfg: ModelConfig, dtype: DTypeLike = jnp.float32) -> Params:
    """Shapes of the parameters of a model, as `jax.ShapeDtypeStruct`; costs no memory."""
    _, shapes = _skeleton(cfg)
    return _named(jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), shapes))


def init_params(cfg: ModelConfig, key: jax.Array, dtype: DTypeLike = jnp.float32) -> Params:
    """Random parameters: matrices normal with deviation 1 / sqrt(inputs), norms 1, biases 0. Traceable."""
    module = registry.record(cfg).module(cfg, dtype=dtype, rngs=nnx.Rngs(params=key))
    return _named(nnx.to_pure_dict(nnx.state(module)))


def bind(cfg: ModelConfig, params: Params) -> VLM:
    """The module of `cfg` over `params`; cheap, and meant to be called inside `jax.jit`."""
    graphdef, _ = _skeleton(cfg)
    return nnx.merge(graphdef, _numbered(params))


def stack_layers(params: Params) -> Params:
    """The decoder's layers as one dict of arrays with a leading axis L, which `jax.lax.scan` runs over. Traceable."""
    decoder = params["decoder"]
    layers = [decoder["layers"][str(i)] for i in range(len(decoder["layers"]))]
    stacked = jax.tree.map(lambda *leaves: _stack(leaves), *layers)
    return {**params, "decoder": {**decoder, "layers": stacked}}


def unstack_layers(params: Params) -> Params:
    """What `stack_layers` was given. Traceable."""
    decoder = params["decoder"]
    count = len(jax.tree.leaves(decoder["layers"])[0])
    layers = {str(i): jax.tree.map(lambda leaf, i=i: leaf[i], decoder["layers"]) for i in range(count)}
    return {**params, "decoder": {**decoder, "layers": layers}}


def _stack(leaves: Sequence[Any]) -> Any:
    first = leaves[0]
    if isinstance(first, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct((len(leaves), *first.shape), first.dtype)
    return jnp.stack(leaves)


def bind_layer(cfg: ModelConfig, params: Params) -> Layer:
    """One layer of the decoder over its own parameters, without the leading axis L."""
    return nnx.merge(_layer(cfg), params)


def bind_tower(cfg: ModelConfig, params: Params) -> Tower:
    """The vision tower over its own parameters, for training; ConfigError for families without a pass for that."""
    return nnx.merge(_tower(cfg), _numbered(params))


@functools.lru_cache(maxsize=32)
def _layer(cfg: ModelConfig) -> nnx.GraphDef:
    return nnx.split(nnx.eval_shape(lambda: Layer(cfg.text, dtype=jnp.float32, rngs=nnx.Rngs(0))))[0]


@functools.lru_cache(maxsize=32)
def _tower(cfg: ModelConfig) -> nnx.GraphDef:
    registry.require(cfg, "train")
    build = registry.record(cfg).module.tower
    return nnx.split(nnx.eval_shape(lambda: build(cfg, dtype=jnp.float32, rngs=nnx.Rngs(0))))[0]


def _named(tree: Any) -> Any:
    return {str(k): _named(v) for k, v in tree.items()} if isinstance(tree, dict) else tree


def _numbered(tree: Any) -> Any:
    if not isinstance(tree, dict):
        return tree
    return {int(k) if k.isdecimal() else k: _numbered(v) for k, v in tree.items()}
