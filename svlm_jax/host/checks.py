"""What every configuration checks when it is made."""

from typing import Any

from svlm_jax.errors import ConfigError


def require(condition: bool, sentence: str) -> None:
    """Raises ConfigError with `sentence` unless the condition holds."""
    if not condition:
        raise ConfigError(sentence)


def require_positive(config: Any, *names: str) -> None:
    """Raises ConfigError that names the first of these fields that is not positive."""
    for name in names:
        value = getattr(config, name)
        require(value > 0, f"{type(config).__name__}.{name} is {value}, but must be positive.")


def require_statistics(config: Any) -> None:
    """Raises ConfigError unless image_mean and image_std have a value for each of in_channels, deviations positive."""
    channels = (len(config.image_mean), len(config.image_std))
    require(
        channels == (config.in_channels, config.in_channels),
        f"image_mean and image_std have {channels} values, but each needs one for each of {config.in_channels} channels.",
    )
    require(min(config.image_std) > 0, f"image_std is {list(config.image_std)}, but every value must be positive.")
