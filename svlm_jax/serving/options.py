"""Between what a client writes in JSON and `StreamOptions`: every field checked, every fault one sentence."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, get_args

from svlm_jax.errors import ConfigError, RequestError
from svlm_jax.serving.frames import Late
from svlm_jax.serving.limits import Limits
from svlm_jax.serving.stream import StreamOptions

WINDOW = ("vision", "text", "sink", "tail")
SAMPLING: Mapping[str, type] = {
    "temperature": float,
    "top_k": int,
    "top_p": float,
    "repetition_penalty": float,
    "max_new_tokens": int,
}
FIELDS = ("query", "previous_text", "window", "late", "seed", "paused", "source", *SAMPLING)


def changed(options: StreamOptions, instructions: Any, asked: Any, limits: Limits) -> StreamOptions:
    """The options with what a client asks for. instructions: the system prompt, or None; asked: the object "svlm", or None.

    RequestError names the field that is unknown, of the wrong kind, or out of range.
    """
    changes: dict[str, Any] = {}
    if instructions is not None:
        changes["system"] = limits.text("instructions", _text("instructions", instructions))
    asked = {} if asked is None else asked
    if not isinstance(asked, Mapping):
        raise fault("svlm", asked, "an object")
    if unknown := sorted(set(asked) - set(FIELDS)):
        sentence = f"svlm.{unknown[0]} is not known: expected any of {', '.join(FIELDS)}"
        raise RequestError("unknown_field", sentence, param=f"svlm.{unknown[0]}")
    if "query" in asked:
        query = asked["query"]
        changes["query"] = None if query is None else limits.text("svlm.query", _text("svlm.query", query))
    if "previous_text" in asked:
        changes["previous_text"] = limits.text("svlm.previous_text", _text("svlm.previous_text", asked["previous_text"]))
    if "late" in asked:
        if asked["late"] not in get_args(Late):
            raise fault("svlm.late", asked["late"], " or ".join(get_args(Late)))
        changes["late"] = asked["late"]
    if "seed" in asked:
        changes["seed"] = int(_number("svlm.seed", asked["seed"], int))
        if not 0 <= changes["seed"] < 2**31:
            raise fault("svlm.seed", asked["seed"], "a whole number of 0 to 2,147,483,647")
    try:
        if "window" in asked:
            changes["window"] = dataclasses.replace(options.window, **_window(asked["window"]))
        sampling = {name: kind(_number(f"svlm.{name}", asked[name], kind)) for name, kind in SAMPLING.items() if name in asked}
        if sampling:
            changes["sampling"] = dataclasses.replace(options.sampling, **sampling)
    except ConfigError as error:
        raise RequestError("bad_value", str(error), param="svlm") from None
    return dataclasses.replace(options, **changes)


def described(options: StreamOptions) -> dict[str, Any]:
    """The options as a client may send them back."""
    return {
        "query": options.query,
        "window": {name: getattr(options.window, name) for name in WINDOW},
        "late": options.late,
        "seed": options.seed,
        **{name: getattr(options.sampling, name) for name in SAMPLING},
    }


def _window(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or set(value) - set(WINDOW):
        raise fault("svlm.window", value, f"an object with any of {', '.join(WINDOW)}")
    seconds = {name: float(_number(f"svlm.window.{name}", value[name], float)) for name in ("vision", "text") if name in value}
    words = {
        name: None if value[name] is None else int(_number(f"svlm.window.{name}", value[name], int))
        for name in ("sink", "tail")
        if name in value
    }
    return {**seconds, **words}


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise fault(name, value, "text")
    return value


def _number(name: str, value: Any, kind: type) -> float:
    right = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not right or (kind is int and value != int(value)):
        raise fault(name, value, "a whole number" if kind is int else "a finite number")
    return float(value) if kind is float else int(value)


def fault(name: str, value: Any, expected: str) -> RequestError:
    shown = repr(value)
    return RequestError("bad_value", f"{name}={shown[:60]}: expected {expected}", param=name)
