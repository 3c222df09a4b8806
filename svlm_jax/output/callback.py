"""Captions and answers as function calls."""

from collections.abc import Callable

import numpy as np

from svlm_jax.output.answer import AnswerRecord
from svlm_jax.output.base import Closing
from svlm_jax.streaming.caption import Caption


class Callback(Closing):
    """A sink that calls a function with every caption, and `answered`, if given, with every answer.

    What the functions raise goes through unchanged.
    """

    def __init__(self, function: Callable[[Caption], object], answered: Callable[[AnswerRecord], object] | None = None):
        self._function, self._answered = function, answered

    def write(self, caption: Caption, frames: np.ndarray | None = None) -> None:
        self._function(caption)

    def answer(self, record: AnswerRecord) -> None:
        if self._answered is not None:
            self._answered(record)
