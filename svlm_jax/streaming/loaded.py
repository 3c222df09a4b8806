"""A loaded model: what every stream of it shares, and no state of theirs."""

import pathlib
from typing import Any, Self

import jax
import jax.numpy as jnp

from svlm_jax.checkpoint import hf, named
from svlm_jax.checkpoint.streaming_block import most_pixels, resize_rule
from svlm_jax.errors import StreamError
from svlm_jax.models.quant import QuantArray, check_scheme
from svlm_jax.models.resize_rule import ResizeRule
from svlm_jax.streaming.settings import StreamSettings


class LoadedVLM:
    """A checkpoint in memory, with its tokenizer and the settings that it was trained with."""

    def __init__(self, checkpoint: hf.Checkpoint, *, name: str = "") -> None:
        self.checkpoint, self.name = checkpoint, name
        self.config, self.params, self.tokenizer = checkpoint.config, checkpoint.params, checkpoint.tokenizer
        self.dtype = hf.dtype_of(checkpoint.params)
        self.defaults = StreamSettings.from_generation_config(checkpoint.generation_config)
        self.most_pixels = most_pixels(checkpoint.generation_config)

    @property
    def number_format(self) -> str:
        """What is computed in, and what the decoder's weights are kept in where that is another: "bfloat16, int8 weights"."""
        table = self.params["decoder"]["embed"]["weight"]
        if not isinstance(table, QuantArray):
            return str(self.dtype)
        return f"{self.dtype}, {'int8' if table.values.dtype == jnp.int8 else 'fp8'} weights"

    def resize_rule(self, asked: int | None = None) -> ResizeRule:
        """How large frames reach the model, for `open_source`; asked: pixels of a frame, else as the checkpoint was trained."""
        return resize_rule(self.config, self.checkpoint.generation_config, asked)

    @classmethod
    def from_pretrained(cls, model: str | pathlib.Path, *, dtype: str = "auto", **options: Any) -> Self:
        """Loads a model by a name that `checkpoint.named` lists: a folder, a hub id, "embedded", ... options: see its `load`.

        dtype: "auto" is bfloat16 on GPU and TPU, float32 on CPU. quantize, one of the options: int8 or fp8 weights.
        """
        check_scheme(options.get("quantize"))
        if dtype == "auto":
            dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
        return cls(named.load(model, dtype=jnp.dtype(dtype), **options), name=str(model))


def check_size(most: int | None, frames: tuple[int, ...], second: float) -> None:
    """StreamError when frames, (F, 3, height, width), have more pixels than a model was trained to see: it would only guess."""
    height, width = frames[-2:]
    if most is not None and height * width > most:
        raise StreamError(
            f"frames of {height}x{width} pixels at {second:.0f} s: this model was trained on at most {most:,} pixels a frame, "
            f"expected a source that `session.open` or `vlm.open` has opened, or a stream with another max_pixels"
        )
