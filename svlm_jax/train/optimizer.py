"""AdamW with a warm-up and a cosine, as the published runs use it (arXiv 2510.09608, section 3.1 and its released scripts)."""

import dataclasses
import math

import optax

from svlm_jax.errors import ConfigError
from svlm_jax.models.flat_params import Flat
from svlm_jax.sharding import logical_axes


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW (Loshchilov & Hutter 2019); the rate rises over the share `warmup` of all steps and falls to 0 as a cosine.

    `clip_norm` 0: gradients are not clipped, as published; their norm is logged either way. Norms and biases never decay.
    """

    learning_rate: float = 1e-5
    warmup: float = 0.03
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float = 0.0

    def __post_init__(self) -> None:
        for name, least, most in (
            ("learning_rate", 0, math.inf),
            ("warmup", 0, 1),
            ("beta1", 0, 1),
            ("beta2", 0, 1),
            ("weight_decay", 0, math.inf),
            ("clip_norm", 0, math.inf),
        ):
            value = getattr(self, name)
            if not least <= value <= most:
                raise ConfigError(f"optimizer.{name} is {value}, expected {least} to {most}.")


def schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Learning rate of the step after `count` steps, over `steps` in all."""
    warm = math.ceil(config.warmup * steps)
    return optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, warm, max(steps, warm + 1), 0.0)


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """The optimizer of a run of `steps` steps."""
    adamw = optax.adamw(
        schedule(config, steps),
        b1=config.beta1,
        b2=config.beta2,
        eps=config.eps,
        weight_decay=config.weight_decay,
        mask=_decays,
    )
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), adamw) if config.clip_norm else adamw


def _decays(params: Flat) -> dict[str, bool]:
    return {path: len([axis for axis in logical_axes(path) if axis != "layer"]) > 1 for path in params}
