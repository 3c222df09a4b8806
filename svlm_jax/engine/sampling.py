"""How the next token is chosen from logits: the order of operations is that of `transformers`' generate."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from svlm_jax.checkpoint.streaming_block import candidates, streaming_block, suppressed_ids
from svlm_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Static settings of decoding. The defaults are the published ones (arXiv 2510.09608, released inference code).

    Attributes:
      temperature: 0 = greedy.
      top_k: keep the k likeliest ids; 0 = all.
      top_p: keep the smallest set of ids whose probability reaches top_p; 1 = all.
      repetition_penalty: > 1 makes every id of the retained sequence less likely, once however often it occurs.
      max_new_tokens: at most so many tokens a chunk.
      suppress: ids that are never chosen.
      unpenalized: ids that the repetition penalty leaves alone.
    """

    temperature: float = 0.9
    top_k: int = 50
    top_p: float = 1.0
    repetition_penalty: float = 1.05
    max_new_tokens: int = 20
    suppress: tuple[int, ...] = ()
    unpenalized: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        checks = (
            ("temperature", 0 <= self.temperature < math.inf, "0 (greedy) or more"),
            ("top_k", self.top_k >= 0, "0 (off) or more"),
            ("top_p", 0 < self.top_p <= 1, "a probability above 0, at most 1"),
            ("repetition_penalty", 0 < self.repetition_penalty < math.inf, "a factor above 0"),
            ("max_new_tokens", self.max_new_tokens >= 1, "1 or more"),
        )
        for name, fine, expected in checks:
            if not fine:
                raise ConfigError(f"{name}={getattr(self, name)}: expected {expected}")

    @classmethod
    def from_generation_config(cls, generation: Mapping[str, Any], **overrides: Any) -> "Sampling":
        """The published temperature and penalty, with the checkpoint's top-k, top-p and suppressed ids, then `overrides`.

        The published inference code passes temperature and penalty itself and leaves the rest to `generation_config.json`.
        A checkpoint that says more has a `streaming_block`. An override of None means "not given".
        """
        settings = {**candidates(generation), "suppress": suppressed_ids(generation)}
        settings.update(streaming_block(generation).get("sampling", {}))
        settings.update({name: value for name, value in overrides.items() if value is not None})
        return cls(**settings)


def penalize(logits: Float[Array, "V"], seen: Bool[Array, "V"], sampling: Sampling) -> Float[Array, "V"]:
    """Repetition penalty over `seen`, then suppression."""
    if sampling.repetition_penalty != 1.0:
        if sampling.unpenalized:
            seen = seen.at[jnp.asarray(sampling.unpenalized)].set(False)
        factor = sampling.repetition_penalty
        logits = jnp.where(seen, jnp.where(logits < 0, logits * factor, logits / factor), logits)
    if sampling.suppress:
        logits = logits.at[jnp.asarray(sampling.suppress)].set(-jnp.inf)
    return logits


def truncate(logits: Float[Array, "V"], sampling: Sampling) -> Float[Array, "V"]:
    """Temperature, then top-k, then top-p: ids outside are set to -inf."""
    logits = logits / sampling.temperature
    top = None  # the candidates, best first
    if 0 < sampling.top_k < logits.shape[0]:
        top = jax.lax.top_k(logits, sampling.top_k)[0]
        logits = jnp.where(logits < top[-1], -jnp.inf, logits)
    if sampling.top_p < 1.0:
        top = jnp.sort(logits, descending=True) if top is None else top
        probability = jax.nn.softmax(top)
        kept = jnp.cumsum(probability) - probability < sampling.top_p  # the probability before an id; the best always stays
        logits = jnp.where(logits < jnp.min(jnp.where(kept, top, jnp.inf)), -jnp.inf, logits)
    return logits


def pick(logits: Float[Array, "V"], seen: Bool[Array, "V"], key: Array, sampling: Sampling) -> Int[Array, ""]:
    """Chooses one id from raw float32 logits. `key` is not used by greedy decoding (temperature 0)."""
    logits = penalize(logits, seen, sampling)
    if sampling.temperature == 0:
        return jnp.argmax(logits).astype(jnp.int32)
    return jax.random.categorical(key, truncate(logits, sampling)).astype(jnp.int32)
