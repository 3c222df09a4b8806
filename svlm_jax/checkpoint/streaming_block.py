"""How a checkpoint wants to be streamed: the object "svlm" in its generation_config.json, which others ignore.

    "svlm": {"window": {"vision": 16, "text": 64, "sink": 8, "tail": 96}, "query": null,
             "sampling": {"temperature": 0.0, "repetition_penalty": 1.0, "max_new_tokens": 20}, "max_pixels": 9408}

Every part may be missing: the published settings then hold. What a user asks for comes before both.
"""

from collections.abc import Mapping
from typing import Any, get_args

from svlm_jax.cache.window import Positions
from svlm_jax.errors import CheckpointError
from svlm_jax.host.schema import Choice, Either, Kind, ListOf, Nullable, Number, Object, Record, Text, Whole
from svlm_jax.models import registry
from svlm_jax.models.config import ModelConfig
from svlm_jax.models.resize_rule import ResizeRule

KEY = "svlm"
TOKEN_ID = Whole(least=0, most=2**31 - 1)
_SECONDS, _WORDS = Number(least=0, most=1e8), Whole(least=0, most=2**29)
_CANDIDATES: Mapping[str, Kind[Any]] = {"top_k": TOKEN_ID, "top_p": Number(above=0, most=1)}
WINDOW: Mapping[str, Kind[Any]] = {
    "vision": _SECONDS,
    "text": _SECONDS,
    "sink": Nullable(_WORDS),  # null: the previous text is never cut
    "tail": Nullable(_WORDS),
    "positions": Choice(get_args(Positions)),
}
SAMPLING: Mapping[str, Kind[Any]] = {
    "temperature": Number(least=0, most=1000),
    **_CANDIDATES,
    "repetition_penalty": Number(above=0, most=1000),
    "max_new_tokens": Whole(least=1, most=10**6),
}
_PARTS: Mapping[str, Kind[Any]] = {
    "window": Object(),
    "sampling": Object(),
    "query": Nullable(Text()),
    "max_pixels": Whole(least=1, most=10**10),
}
_FILE = "generation_config.json"


def streaming_block(generation: Mapping[str, Any]) -> Mapping[str, Any]:
    """The block of a generation_config.json, {} without one; CheckpointError when it holds what is not known."""
    record = Record(generation, _FILE, CheckpointError)
    if KEY not in record:
        return {}
    where = f'{_FILE}, "{KEY}"'
    block = Record(record.get(KEY, Object()), where, CheckpointError).fields(_PARTS)
    for name, kinds in (("window", WINDOW), ("sampling", SAMPLING)):
        if name in block:
            block[name] = Record(block[name], f"{where}, {name}", CheckpointError).fields(kinds)
    return block


def candidates(generation: Mapping[str, Any]) -> dict[str, Any]:
    """top_k and top_p of a generation_config.json, those that it gives. CheckpointError for what is out of range."""
    record = Record(generation, _FILE, CheckpointError)
    return {name: record.get(name, kind) for name, kind in _CANDIDATES.items() if name in record}


def suppressed_ids(generation: Mapping[str, Any]) -> tuple[int, ...]:
    """The ids that a generation_config.json never lets come. CheckpointError for what are none."""
    return Record(generation, _FILE, CheckpointError).get("suppress_tokens", ListOf(TOKEN_ID), ())


def stop_ids(generation: Mapping[str, Any]) -> tuple[int, ...]:
    """The ids that end a reply by a generation_config.json: one, some, or none. CheckpointError for what are none."""
    found = Record(generation, _FILE, CheckpointError).get("eos_token_id", Either((TOKEN_ID, ListOf(TOKEN_ID))), ())
    return (found,) if isinstance(found, int) else found


def most_pixels(generation: Mapping[str, Any]) -> int | None:
    """Pixels of the largest frame that the checkpoint was trained on; None when it does not say."""
    return streaming_block(generation).get("max_pixels")


def resize_rule(config: ModelConfig, generation: Mapping[str, Any], asked: int | None = None) -> ResizeRule:
    """How large frames reach this model: its family's rule, with at most the pixels asked for, else those of its training.

    Raises ConfigError for fewer pixels than one token has, CheckpointError when it is the checkpoint that names them.
    """
    rule, trained = registry.resize_rule(config), most_pixels(generation)
    if asked is None and trained is not None and trained < rule.factor**2:
        raise CheckpointError(
            f"{_FILE}, \"{KEY}\": 'max_pixels' is {trained}, expected at least {rule.factor**2}, the pixels of one token."
        )
    return rule.at_most(trained if asked is None else asked)
