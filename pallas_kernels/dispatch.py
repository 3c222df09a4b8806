"""Which implementation of a kernel runs, and why.

A named implementation runs or raises, it never falls back; `auto` chooses, and says once what it chose.
"""

import functools
import logging
from typing import Literal, get_args

Implementation = Literal["auto", "reference", "xla", "mosaic_gpu", "mosaic_tpu", "interpret"]
Runnable = Literal["reference", "xla"]

_log = logging.getLogger(__name__)


def resolve(kernel: str, implementation: Implementation) -> Runnable:
    """The implementation to run. NotImplementedError, with the reason, for one that this kernel does not have."""
    if implementation == "auto":
        _say_once(kernel, "xla")
        return "xla"
    if implementation in ("reference", "xla"):
        return implementation
    if implementation in ("mosaic_gpu", "mosaic_tpu", "interpret"):
        raise NotImplementedError(f"{kernel} has no Pallas kernel yet, so {implementation!r} cannot run; use 'xla'.")
    raise ValueError(f"{kernel}: implementation is {implementation!r}, expected one of {get_args(Implementation)}.")


@functools.cache
def _say_once(kernel: str, chosen: str) -> None:
    _log.info("%s: running the %s implementation, the only one for this device so far", kernel, chosen)
