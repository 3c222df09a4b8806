"""What a stream that goes on can be asked for: what it was started with, and nothing else."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from svlm_jax.engine.sampling import Sampling
from svlm_jax.errors import ConfigError
from svlm_jax.streaming.settings import StreamSettings

# Options of the command line, and the fields of the settings that they say.
FIELDS: Mapping[str, tuple[str, ...]] = {
    "fps": ("fps",),
    "chunk": ("chunk_seconds",),
    "seed": ("seed",),
    "query": ("query",),
    "system": ("system",),
    "previous-text": ("previous_text",),
    "parity": ("parity",),
    "cache-dtype": ("cache_dtype",),
    **{f"window {part}": (f"window.{part}",) for part in ("vision", "text", "sink", "tail")},
    "cache": ("window.memory",),
    "positions": ("window.positions",),
    "greedy": ("sampling.temperature",),
    "temperature": ("sampling.temperature",),
    "top-k": ("sampling.top_k",),
    "top-p": ("sampling.top_p",),
    "repetition-penalty": ("sampling.repetition_penalty",),
    "max-new-tokens": ("sampling.max_new_tokens",),
}


def check_resumable(saved: StreamSettings, sampling: Sampling, asked: StreamSettings, options: Iterable[str]) -> None:
    """ConfigError when one of the options asks for something else than a saved stream goes on with.

    Args:
      saved, sampling: what the stream was started with. asked: all settings as the command line would have them.
      options: the names of those that somebody gave, as in FIELDS; others are not about the stream.
    """
    saved = dataclasses.replace(saved, sampling=sampling)
    for option in options:
        for field in FIELDS.get(option, ()):
            before, now = _value(saved, field), _value(asked, field)
            if before != now:
                raise ConfigError(
                    f"--{option}: a stream that is resumed goes on with {field.rpartition('.')[2]}={before!r}, as it was "
                    f"started, and cannot take {now!r}; leave the option out, or begin a new stream without --resume."
                )


def _value(settings: StreamSettings, field: str) -> Any:
    value: Any = settings
    for name in field.split("."):
        value = getattr(value, name)
    return value
