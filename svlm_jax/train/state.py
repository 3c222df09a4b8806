"""What a run holds between steps: float32 master weights and optimizer state of what it trains; the rest stays as it was."""

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.typing import DTypeLike

from svlm_jax.errors import ConfigError
from svlm_jax.models import flat_params, functional
from svlm_jax.models.config import ModelConfig
from svlm_jax.models.flat_params import DOWN, UP, Flat
from svlm_jax.sharding import P, frozen_shardings, shardings
from svlm_jax.train.lora import LoraConfig, adapters


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that a step changes. `params` holds trained weights only, float32; `step` counts steps (int32)."""

    params: Flat
    opt_state: Any
    step: Any


@dataclasses.dataclass(frozen=True)
class Partition:
    """Which parameters of a model are trained; what `freeze` matches (at the start of its path) is not.

    The published runs freeze the vision tower and its merger. With low-rank adapters only these are trained.
    """

    freeze: tuple[str, ...] = (r"visual\.",)
    lora: LoraConfig = dataclasses.field(default_factory=LoraConfig)

    def is_trained(self, path: str) -> bool:
        return not self.lora.rank and not any(re.match(pattern, path) for pattern in self.freeze)

    def split(self, flat: Flat) -> tuple[Flat, Flat]:
        """Trained parameters (without adapters, which are new) and the others; ConfigError when none is trained."""
        trained = {path: leaf for path, leaf in flat.items() if self.is_trained(path)}
        if not trained and not self.lora.rank:
            raise ConfigError(f"freeze {list(self.freeze)} matches every parameter, expected some that are left to train.")
        return trained, {path: leaf for path, leaf in flat.items() if path not in trained}


def abstract_flat(config: ModelConfig, dtype: DTypeLike = jnp.float32) -> Flat:
    """Shapes of a model's parameters, as a run holds them."""
    return flat_params.from_model(functional.abstract_params(config, dtype))


def abstract_weights(config: ModelConfig, partition: Partition, mesh: Mesh, frozen_dtype: DTypeLike) -> tuple[Flat, Flat]:
    """Shapes and shardings of trained (float32) and frozen parameters."""
    trained, frozen = partition.split(abstract_flat(config))
    if partition.lora.rank:
        trained = _adapter_shapes(partition.lora, frozen)
    return _placed(trained, shardings(trained, mesh), jnp.float32), _placed(
        frozen, frozen_shardings(frozen, mesh), frozen_dtype
    )


def abstract_state(trained: Flat, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """Shapes and shardings of the state; that of the optimizer lies where its parameters lie."""
    whole = NamedSharding(mesh, P())
    opt_state = jax.eval_shape(optimizer.init, trained)
    opt_state = optax.tree_map_params(optimizer, lambda leaf, like: like, opt_state, trained)

    def placed(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding if leaf.ndim else whole)

    step = jax.ShapeDtypeStruct((), jnp.int32, sharding=whole)
    return TrainState(trained, jax.tree.map(placed, opt_state), step)


def init_flat(config: ModelConfig, mesh: Mesh, seed: int) -> Flat:
    """Random float32 parameters; the same for every mesh."""
    where = shardings(abstract_flat(config), mesh)
    return jax.jit(lambda: flat_params.from_model(functional.init_params(config, jax.random.key(seed))), out_shardings=where)()


def place_flat(params: functional.Params, mesh: Mesh) -> Flat:
    """Loaded parameters, stacked and cut over the mesh; the memory of `params` is given back layer by layer if it can be."""
    where = shardings(jax.eval_shape(flat_params.from_model, params), mesh)
    return jax.jit(flat_params.from_model, out_shardings=where)(params)


def init_state(
    flat: Flat,
    partition: Partition,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    seed: int = 0,
    frozen_dtype: DTypeLike = jnp.bfloat16,
) -> tuple[TrainState, Flat]:
    """The state before the first step, and the frozen parameters."""
    trained, frozen = partition.split(flat)
    if partition.lora.rank:
        trained = _init_adapters(partition.lora, frozen, mesh, seed)
    abstract = abstract_state({path: _like(leaf) for path, leaf in trained.items()}, optimizer, mesh)
    where = jax.tree.map(lambda leaf: leaf.sharding, abstract.opt_state)
    opt_state = jax.jit(optimizer.init, out_shardings=where)(trained)
    step = jax.device_put(jnp.int32(0), NamedSharding(mesh, P()))

    def cast(frozen: Flat) -> Flat:
        return {path: leaf.astype(frozen_dtype) for path, leaf in frozen.items()}

    return TrainState(trained, opt_state, step), jax.jit(cast, out_shardings=frozen_shardings(frozen, mesh))(frozen)


def merged(trained: Flat, frozen: Flat, lora: LoraConfig) -> Flat:
    """The weights of a whole model, float32, adapters added in. Traceable."""
    flat = {path: leaf.astype(jnp.float32) for path, leaf in {**frozen, **trained}.items()}
    for path in [path.removesuffix(DOWN) for path in flat if path.endswith(DOWN)]:
        down, up = flat.pop(path + DOWN), flat.pop(path + UP)
        flat[path] = flat[path] + lora.scale * jnp.einsum("lir,lro->lio", down, up, precision="highest")
    return flat


def _init_adapters(lora: LoraConfig, frozen: Flat, mesh: Mesh, seed: int) -> Flat:
    shapes = _adapter_shapes(lora, frozen)

    def draw() -> Flat:
        keys = jax.random.split(jax.random.key(seed), len(shapes))
        flat: Flat = {}
        for key, (path, shape) in zip(keys, shapes.items(), strict=True):
            down = path.endswith(DOWN)
            flat[path] = jax.random.normal(key, shape.shape) * shape.shape[1] ** -0.5 if down else jnp.zeros(shape.shape)
        return flat

    return jax.jit(draw, out_shardings=shardings(shapes, mesh))()


def _adapter_shapes(lora: LoraConfig, frozen: Flat) -> Flat:
    shapes: Flat = {}
    for path in adapters(lora, frozen):
        layers, inputs, outputs = frozen[path].shape
        shapes[path + DOWN] = jax.ShapeDtypeStruct((layers, inputs, lora.rank), jnp.float32)
        shapes[path + UP] = jax.ShapeDtypeStruct((layers, lora.rank, outputs), jnp.float32)
    return shapes


def _placed(flat: Flat, where: dict[str, NamedSharding], dtype: DTypeLike) -> Flat:
    return {path: jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=where[path]) for path, leaf in flat.items()}


def _like(leaf: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
