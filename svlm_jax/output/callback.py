"""Captions as function calls."""

from collections.abc import Callable

import numpy as np

from svlm_jax.output.base import Closing
from svlm_jax.streaming.caption import Caption


class Callback(Closing):
    """A sink that calls a function with every caption; what the function raises goes through unchanged."""

    def __init__(self, function: Callable[[Caption], object]):
        self._function = function

    def write(self, caption: Caption, frames: np.ndarray | None = None) -> None:
        self._function(caption)
