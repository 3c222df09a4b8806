"""How the next token is chosen from logits: the order of operations is that of `transformers`' generate."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32

from svlm_jax.checkpoint.streaming_block import candidates, streaming_block, suppressed_ids
from svlm_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Settings of decoding, as a user writes them. The defaults are the published ones (arXiv 2510.09608, released code).

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

    @property
    def bounds(self) -> "SamplingBounds":
        """The smallest program that has room for these settings."""
        top_k = self.top_k if self.temperature > 0 else 1
        return SamplingBounds(self.max_new_tokens, top_k, self.suppress, self.unpenalized)

    @property
    def limits(self) -> "SamplingLimits":
        """These settings as numbers of one lane."""
        return self.bounds.limits(self)


@dataclasses.dataclass(frozen=True)
class SamplingBounds:
    """What a compiled program has room for; within it, `SamplingLimits` are free to change.

    Attributes:
      max_new_tokens: the largest cap of a lane.
      top_k: the largest top-k of a lane; 0 = no bound, and the whole vocabulary is sorted for each token; 1 = all lanes are
        greedy, and the program draws nothing.
      suppress: ids that are never chosen. unpenalized: ids that the repetition penalty leaves alone.
    """

    max_new_tokens: int
    top_k: int
    suppress: tuple[int, ...] = ()
    unpenalized: tuple[int, ...] = ()

    @property
    def greedy(self) -> bool:
        return self.top_k == 1

    def limits(self, sampling: Sampling) -> "SamplingLimits":
        """The settings as numbers of one lane. Raises ConfigError for those that the program has no room for."""
        if sampling.max_new_tokens > self.max_new_tokens:
            raise ConfigError(
                f"max_new_tokens={sampling.max_new_tokens}: expected at most {self.max_new_tokens}, "
                "for which the lanes were made"
            )
        if sampling.temperature > 0 and self.top_k and not 0 < sampling.top_k <= self.top_k:
            raise ConfigError(f"top_k={sampling.top_k}: expected 1 to {self.top_k}, for which the lanes were made")
        for name in ("suppress", "unpenalized"):
            if getattr(sampling, name) != getattr(self, name):
                raise ConfigError(f"{name}={getattr(sampling, name)}: expected {getattr(self, name)}, as the lanes were made")
        return SamplingLimits(
            temperature=jnp.float32(sampling.temperature),
            top_k=jnp.int32(sampling.top_k),
            top_p=jnp.float32(sampling.top_p),
            repetition_penalty=jnp.float32(sampling.repetition_penalty),
            max_new_tokens=jnp.int32(sampling.max_new_tokens),
        )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SamplingLimits:
    """How tokens are chosen, as numbers of each lane that a compiled program reads; see `Sampling`."""

    temperature: Float[Array, "B"]
    top_k: Int[Array, "B"]
    top_p: Float[Array, "B"]
    repetition_penalty: Float[Array, "B"]
    max_new_tokens: Int[Array, "B"]

    def within(self, count: Int[Array, "B"]) -> "SamplingLimits":
        """The same with replies of at most `count` tokens: a slice of a reply ends there."""
        return dataclasses.replace(self, max_new_tokens=jnp.minimum(self.max_new_tokens, count))


def key_of(seed: int) -> UInt32[Array, "2"]:
    """The PRNG key data of a seed."""
    return jax.random.key_data(jax.random.key(seed, impl="threefry2x32"))


def fold_in(key: UInt32[Array, "B 2"], number: Int[Array, "B"]) -> UInt32[Array, "B 2"]:
    """Key data that depends on `key` and `number` alone, so that a stream can resume: the one way in which keys are made."""

    def fold(key: Array, number: Array) -> Array:
        return jax.random.key_data(jax.random.fold_in(jax.random.wrap_key_data(key, impl="threefry2x32"), number))

    return jax.vmap(fold)(key, number)


def penalize(
    logits: Float[Array, "V"], penalized_ids: Bool[Array, "V"], limits: SamplingLimits, bounds: SamplingBounds
) -> Float[Array, "V"]:
    """Repetition penalty over the ids that were said, then suppression."""
    if bounds.unpenalized:
        penalized_ids = penalized_ids.at[jnp.asarray(bounds.unpenalized)].set(False)
    factor = limits.repetition_penalty
    logits = jnp.where(penalized_ids, jnp.where(logits < 0, logits * factor, logits / factor), logits)
    if bounds.suppress:
        logits = logits.at[jnp.asarray(bounds.suppress)].set(-jnp.inf)
    return logits


def truncate(logits: Float[Array, "V"], limits: SamplingLimits, bounds: SamplingBounds) -> Float[Array, "V"]:
    """Temperature, then top-k, then top-p: ids outside are set to -inf."""
    vocab = logits.shape[0]
    count = bounds.top_k if 0 < bounds.top_k < vocab else vocab
    logits = logits / jnp.where(limits.temperature > 0, limits.temperature, 1)
    candidates = jax.lax.top_k(logits, count)[0] if count < vocab else jnp.sort(logits, descending=True)
    k = jnp.where(limits.top_k > 0, jnp.minimum(limits.top_k, count), count)
    candidates = jnp.where(jnp.arange(count) < k, candidates, -jnp.inf)
    probability = jax.nn.softmax(candidates)
    before = jnp.cumsum(probability) - probability  # so the best always stays
    kept = (candidates > -jnp.inf) & ((before < limits.top_p) | (limits.top_p >= 1))
    return jnp.where(logits < jnp.min(jnp.where(kept, candidates, jnp.inf)), -jnp.inf, logits)


def pick(
    logits: Float[Array, "B V"],
    penalized_ids: Bool[Array, "B V"],
    key: UInt32[Array, "B 2"],
    limits: SamplingLimits,
    bounds: SamplingBounds,
) -> Int[Array, "B"]:
    """Chooses one id a lane from raw float32 logits. A lane of temperature 0 is greedy and takes no notice of its key."""

    def one(logits: Array, penalized_ids: Array, key: Array, limits: SamplingLimits) -> Array:
        scores = penalize(logits, penalized_ids, limits, bounds)
        if not bounds.greedy:
            # The largest of scores with Gumbel noise is a sample (`jax.random.categorical`); without noise it is the best.
            noise = jax.random.gumbel(jax.random.wrap_key_data(key, impl="threefry2x32"), scores.shape, scores.dtype)
            scores = jnp.where(limits.temperature > 0, truncate(scores, limits, bounds) + noise, scores)
        return jnp.argmax(scores).astype(jnp.int32)

    return jax.vmap(one)(logits, penalized_ids, key, limits)
