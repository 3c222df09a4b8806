"""Values of the command line: each converter takes the text that the user gave, or says in one sentence why it does not fit."""

import argparse
import math
from collections.abc import Callable


def number(kind: type[int] | type[float], *, least: float | None = None, above: float | None = None) -> Callable[[str], float]:
    """A converter to int or float that insists on `value >= least` and `value > above`."""

    def convert(text: str) -> float:
        wanted = "a whole number" if kind is int else "a number"
        limit = f" of at least {least:g}" if least is not None else f" above {above:g}" if above is not None else ""
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}{limit}") from None
        if not math.isfinite(value) or not (least is None or value >= least) or not (above is None or value > above):
            raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}{limit}")
        return value

    return convert


def window(text: str) -> dict[str, float | int | None]:
    """`vision=16,text=16,sink=512,tail=512`, any part of it, as a dict; `none` (sink and tail only) keeps all text."""
    found: dict[str, float | int | None] = {}
    for part in text.split(","):
        name, equals, value = part.strip().partition("=")
        if name not in ("vision", "text", "sink", "tail") or not equals or name in found:
            raise argparse.ArgumentTypeError(
                f"{part.strip()!r} is not one of vision=SECONDS, text=SECONDS, sink=TOKENS, tail=TOKENS, each at most once"
            )
        if name in ("sink", "tail"):
            found[name] = None if value == "none" else int(number(int, least=0)(value))
        else:
            found[name] = number(float, least=0)(value)
    return found


def size(text: str) -> tuple[int, int]:
    """`1280x720` as (width, height) in pixels."""
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a picture size such as 1280x720")
    return int(width), int(height)


def shard(text: str) -> tuple[int, int]:
    """`2/8` as (2, 8): the second of eight shares."""
    one, _, of = text.partition("/")
    if not (one.isdecimal() and of.isdecimal() and 1 <= int(one) <= int(of)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a share such as 2/8")
    return int(one), int(of)


def numbers(text: str) -> tuple[int, ...]:
    """`16,64,256` as whole numbers of at least 2."""
    return tuple(int(number(int, least=2)(part.strip())) for part in text.split(","))
