"""How a checkpoint wants to be streamed: the object "svlm" in its generation_config.json, which others ignore.

    "svlm": {"window": {"vision": 16, "text": 64, "sink": 8, "tail": 96}, "query": null,
             "sampling": {"temperature": 0.0, "repetition_penalty": 1.0, "max_new_tokens": 20}, "max_pixels": 9408}

Every part may be missing: the published settings then hold. What a user asks for comes before both.
"""

from collections.abc import Mapping
from typing import Any, TypedDict

from svlm_jax.errors import CheckpointError
from svlm_jax.video.resize import FACTOR, MIN_PIXELS

KEY = "svlm"
_WINDOW = ("vision", "text", "sink", "tail", "positions")
_SAMPLING = ("temperature", "top_k", "top_p", "repetition_penalty", "max_new_tokens")
# What a part is, in Python and in words.
_PARTS: Mapping[str, tuple[tuple[type, ...], str]] = {
    "window": ((dict,), f"an object with any of {', '.join(_WINDOW)}"),
    "sampling": ((dict,), f"an object with any of {', '.join(_SAMPLING)}"),
    "query": ((str, type(None)), "text or null"),
    "max_pixels": ((int,), f"a whole number of at least {FACTOR**2}"),
}


class PixelBounds(TypedDict, total=False):
    """Arguments of `open_source`."""

    min_pixels: int
    max_pixels: int


def streaming_block(generation: Mapping[str, Any]) -> Mapping[str, Any]:
    """The block of a generation_config.json, {} without one; CheckpointError when it holds what is not known."""
    block: Any = generation.get(KEY, {})
    if not isinstance(block, dict):
        raise CheckpointError(f'"{KEY}" in generation_config.json is {block!r}, expected an object.')
    for name, value in block.items():
        if name not in _PARTS:
            raise CheckpointError(f'"{KEY}" in generation_config.json has {name!r}, expected any of {", ".join(_PARTS)}.')
        kinds, wanted = _PARTS[name]
        unknown = isinstance(value, dict) and set(value) - set(_WINDOW if name == "window" else _SAMPLING)
        tiny = isinstance(value, int) and value < FACTOR**2
        if not isinstance(value, kinds) or unknown or tiny:
            raise CheckpointError(f'"{KEY}.{name}" in generation_config.json is {value!r}, expected {wanted}.')
    return block


def pixel_bounds(generation: Mapping[str, Any], asked: int | None = None) -> PixelBounds:
    """min_pixels and max_pixels of `open_source`: as asked for, else as the checkpoint was trained; {} when neither says so.

    Who wants fewer pixels than the published least gets them.
    """
    most = asked if asked is not None else streaming_block(generation).get("max_pixels")
    if most is None:
        return {}
    return {"min_pixels": min(MIN_PIXELS, most), "max_pixels": most}
