"""The names of number formats of 8 bits, of weights and of caches. Options are made from them, so nothing heavy is imported."""

from typing import Any, Literal, get_args

EightBit = Literal["int8", "fp8"]


def is_eight_bit(name: Any) -> bool:
    """Whether a format, a name or a dtype of JAX, needs scales."""
    return isinstance(name, str) and name in get_args(EightBit)
