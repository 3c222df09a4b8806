"""Weights as they are used: gathered, in the compute dtype, and with low-rank adapters beside them (LoRA, Hu et al. 2021)."""

import dataclasses
import re
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from svlm_jax import sharding
from svlm_jax.errors import ConfigError
from svlm_jax.models.adapted import Adapted
from svlm_jax.models.flat_params import DOWN, TOWER, UP, Flat

ROUTER = "decoder.layers.mlp.router"


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Adapters of rank `rank` on the decoder weights that `targets` names; 0 for none, so that all weights are trained.

    Queries, keys and values are one weight and have one adapter (`attn.qkv`), and so have gate and up (`mlp.gate_up`).
    A product is x · weight + alpha / rank · (x · down) · up; `up` begins as zeros.
    """

    rank: int = 0
    alpha: float = 16.0
    targets: str = r"attn\.(qkv|o)|mlp\.(gate_up|down)"

    def __post_init__(self) -> None:
        if self.rank < 0:
            raise ConfigError(f"lora.rank is {self.rank}, expected 0 (no adapters) or more.")
        try:
            re.compile(self.targets)
        except re.error as error:
            raise ConfigError(f"lora.targets {self.targets!r} is no regular expression: {error}.") from error

    @property
    def scale(self) -> float:
        return self.alpha / self.rank if self.rank else 1.0


@dataclasses.dataclass(frozen=True)
class Weights:
    """The parameters of a run, or of one layer of it, and how they come into use."""

    flat: Flat
    dtype: jnp.dtype
    scale: float

    def paths(self) -> Iterator[str]:
        """Paths of weights, without those of adapters."""
        return (path for path in self.flat if not path.endswith((DOWN, UP)))

    def used(self, path: str, *, of_layer: bool = False) -> Any:
        """The weight in the compute dtype, gathered over fsdp: the cast comes first, so that half as much is moved.

        An adapter stands beside its weight, never in it: added to a bfloat16 weight, small changes would be rounded away, and
        the frozen weight would get a gradient of its own size (`Adapted`, else an array).
        """
        cut = sharding.spec(path)
        if path.startswith(TOWER):
            cut = sharding.P()
        whole = sharding.gathered(sharding.P(*cut[1:]) if of_layer else cut)
        weight = self._moved(path, whole)
        if path + DOWN not in self.flat:
            return weight
        down, up = self._moved(path + DOWN, sharding.P(whole[0], None)), self._moved(path + UP, sharding.P(None, whole[1]))
        return Adapted(weight, down, up, self.scale)

    def _moved(self, path: str, whole: jax.P) -> jax.Array:
        """A parameter, cut like that. A matrix is `reduced`, which makes one reduce-scatter of its gradient's way back.

        Not so what goes into a shard_map, which reduces gradients itself: the tower, and mixtures of experts.
        """
        if len(whole) == 2 and not path.startswith((TOWER, ROUTER)):
            whole = sharding.P(*whole, reduced=frozenset(sharding.ROWS))
        return jax.reshard(self.flat[path].astype(self.dtype), whole)


def adapters(config: LoraConfig, paths: Iterable[str]) -> list[str]:
    """The weights that get adapters; ConfigError when none does."""
    chosen = [path for path in paths if re.fullmatch(rf"decoder\.layers\.({config.targets})\.weight", path)]
    if not chosen:
        raise ConfigError(f"lora.targets {config.targets!r} names no weight of the decoder's layers.")
    return chosen
