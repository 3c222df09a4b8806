"""A loaded model: what every stream of it shares, and no state of theirs."""

import pathlib
from typing import Any, Self

import jax
import jax.numpy as jnp

from svlm_jax.checkpoint import hf
from svlm_jax.checkpoint.streaming_block import pixel_bounds
from svlm_jax.streaming.settings import StreamSettings


class LoadedVLM:
    """A checkpoint in memory, with its tokenizer and the settings that it was trained with."""

    def __init__(self, checkpoint: hf.Checkpoint, *, name: str = "") -> None:
        self.checkpoint, self.name = checkpoint, name
        self.config, self.params, self.tokenizer = checkpoint.config, checkpoint.params, checkpoint.tokenizer
        self.dtype = hf.dtype_of(checkpoint.params)
        self.defaults = StreamSettings.from_generation_config(checkpoint.generation_config)
        self.pixels = pixel_bounds(checkpoint.generation_config)  # for `open_source`

    @classmethod
    def from_pretrained(cls, model: str | pathlib.Path, *, dtype: str = "auto", **options: Any) -> Self:
        """Loads a checkpoint from a folder, a hub id, or "embedded". options: see `checkpoint.hf.load`.

        dtype: "auto" is bfloat16 on GPU and TPU, float32 on CPU.
        """
        if dtype == "auto":
            dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
        return cls(hf.load(model, dtype=jnp.dtype(dtype), **options), name=str(model))
