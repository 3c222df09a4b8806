"""Everything about a stream that is not the model: what a user chooses, else what the checkpoint was trained with."""

import dataclasses
from collections.abc import Mapping
from typing import Any, get_args

from pallas_kernels.dispatch import Implementation
from svlm_jax.cache.number_formats import EightBit
from svlm_jax.cache.window import Memory, WindowConfig
from svlm_jax.checkpoint.streaming_block import SAMPLING, TOKEN_ID, WINDOW, streaming_block
from svlm_jax.engine.sampling import Sampling
from svlm_jax.errors import CheckpointError, ConfigError
from svlm_jax.host.schema import Choice, Flag, Kind, ListOf, Nullable, Number, Object, Record, Text, Whole
from svlm_jax.prompt.commentary import QUERY, SYSTEM

MEMORY_DTYPES = ("float32", "bfloat16", "float16")  # of a memory for questions, whose keys are also compared and averaged
CACHE_DTYPES = (*MEMORY_DTYPES, *get_args(EightBit))


def check_cache_dtype(name: str | None, known: tuple[str, ...] = CACHE_DTYPES) -> None:
    """ConfigError for a number format that keys and values cannot have."""
    if name is not None and name not in known:
        raise ConfigError(f"cache_dtype={name!r}: expected one of {', '.join(known)}")


@dataclasses.dataclass(frozen=True)
class StreamSettings:
    """Everything about a stream that is not the model.

    Attributes:
      window: what is remembered.
      sampling: how words are chosen; None = the published settings with the checkpoint's own top-k and top-p.
      fps: frames a second that the model sees. chunk_seconds: video between two captions.
      query: stands in the first turn and leaves with it, as published. Instructions that must last belong into `system`.
      previous_text: what was said before the stream begins.
      qa_token_budget: tokens of the cache that are kept free for a question and its answer, see `Session.ask`.
      seed: same seed, same words.
      max_pixels: of a frame; None = as the checkpoint was trained, else the published most. Larger frames are refused.
      duration: seconds that the stream may last at most; needed by windows that never close.
      parity: reproduce the published code where ours deliberately differs (docs/decisions.md).
      split_timing: run a second as three programs, so that each can be timed.
      keep_logits: keep the raw logits of every token, for tests.
      cache_dtype: of keys and values; None = what the weights are computed in. int8 and fp8 have a scale a slot and head.
      implementation: attention implementation, see `pallas_kernels.dispatch`.
    """

    window: WindowConfig = WindowConfig()
    sampling: Sampling | None = None
    fps: float = 2.0
    chunk_seconds: float = 1.0
    query: str | None = QUERY
    system: str = SYSTEM
    previous_text: str = ""
    qa_token_budget: int = 0
    seed: int = 42
    max_pixels: int | None = None
    duration: float | None = None
    parity: bool = False
    split_timing: bool = False
    keep_logits: bool = False
    cache_dtype: str | None = None
    implementation: Implementation = "auto"

    def __post_init__(self) -> None:
        for name in ("fps", "chunk_seconds"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name}={getattr(self, name)}: expected more than 0")
        check_cache_dtype(self.cache_dtype)
        if self.qa_token_budget < 0:
            raise ConfigError(f"qa_token_budget={self.qa_token_budget}: expected 0 or more tokens")
        if self.window.memory == "recompute" and self.window.positions == "native":
            raise ConfigError(
                "positions=native with memory=recompute: expected contiguous or text, because the window is computed anew"
            )

    @classmethod
    def from_generation_config(cls, generation: Mapping[str, Any]) -> "StreamSettings":
        """The published settings, with the window and the query that the checkpoint was trained with, if it says so."""
        block = streaming_block(generation)
        query = {"query": block["query"]} if "query" in block else {}
        return cls(window=WindowConfig(**block.get("window", {})), **query)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Any, where: str) -> "StreamSettings":
        """What `to_json` gave, from a file that `where` names; CheckpointError when it does not hold that."""
        fields = Record(data, where, CheckpointError).fields(_SETTINGS)
        if fields.get("sampling") is not None:
            fields["sampling"] = sampling_from_json(fields["sampling"], f"{where}, sampling")
        if "window" in fields:
            fields["window"] = window_from_json(fields["window"], f"{where}, window")
        return cls(**fields)


_WINDOW: Mapping[str, Kind[Any]] = {**WINDOW, "memory": Choice(get_args(Memory))}
_SAMPLING: Mapping[str, Kind[Any]] = {**SAMPLING, "suppress": ListOf(TOKEN_ID), "unpenalized": ListOf(TOKEN_ID)}
_SECONDS = Number(above=0, most=1e8)
_SETTINGS: Mapping[str, Kind[Any]] = {
    "window": Object(),
    "sampling": Nullable(Object()),
    "fps": Number(above=0, most=1000),
    "chunk_seconds": _SECONDS,
    "query": Nullable(Text()),
    "system": Text(),
    "previous_text": Text(),
    "qa_token_budget": Whole(least=0, most=2**24),
    "seed": Whole(),
    "max_pixels": Nullable(Whole(least=1)),
    "duration": Nullable(_SECONDS),
    "parity": Flag(),
    "split_timing": Flag(),
    "keep_logits": Flag(),
    "cache_dtype": Nullable(Choice(CACHE_DTYPES)),
    "implementation": Choice(get_args(Implementation)),
}


def sampling_from_json(data: Any, where: str) -> Sampling:
    return Sampling(**Record(data, where, CheckpointError).fields(_SAMPLING))


def window_from_json(data: Any, where: str) -> WindowConfig:
    return WindowConfig(**Record(data, where, CheckpointError).fields(_WINDOW))
