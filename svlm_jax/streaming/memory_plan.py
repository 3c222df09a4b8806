"""How many bytes a stream takes on a device: what is fixed exactly, what a second needs on top as an estimate."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from svlm_jax.cache.ring import Role
from svlm_jax.cache.window import Lengths, WindowConfig, ring_shape, slots_by_role
from svlm_jax.checkpoint import hf
from svlm_jax.engine.sampling import Sampling
from svlm_jax.models import functional, registry
from svlm_jax.models.config import ModelConfig
from svlm_jax.models.presets import preset
from svlm_jax.models.quant import Scheme, quantize_params
from svlm_jax.prompt.commentary import QUERY, PromptBuilder
from svlm_jax.prompt.tokenizer import Tokenizer

SLOT_BYTES = 4 * (4 + 3 + 1 + 3)  # metadata: token, role, round, order; pos_offset, pos_step, native position
QUERY_BLOCK = 128  # attention looks at so many queries at a time


@dataclasses.dataclass(frozen=True)
class MemoryPlan:
    """Bytes on a device, and the slots of one stream's cache by role.

    Attributes:
      parameters: weights.
      cache: un-rotated keys and values of all streams, with their metadata.
      rotated: rotated keys of all streams, rebuilt every second.
      working: estimate of the largest intermediate arrays of a second.
      slots: slots by part of the conversation, of one stream.
    """

    parameters: int
    cache: int
    rotated: int
    working: int
    slots: Mapping[str, int]

    @property
    def total(self) -> int:
        """All of it."""
        return self.parameters + self.cache + self.rotated + self.working


# Token counts of the prompt in Qwen's vocabulary, with the default system turn and query.
QWEN_LENGTHS = Lengths(system=11, previous=0, label=22, query=9, reply=Sampling().max_new_tokens, patches=0)


def describe(model: str, *, revision: str | None = None) -> tuple[ModelConfig, Lengths]:
    """The configuration of a preset, folder or hub id, and the token counts of its prompt (of the video: 0, not known here).

    Of a hub id only the configuration and the tokenizer are fetched, never the weights.
    """
    if model != hf.EMBEDDED and "/" not in model and not Path(model).exists():
        return preset(model), QWEN_LENGTHS
    folder = hf.resolve(model, revision=revision, files=("*config.json", "tokenizer.json"))
    config = registry.config_from_hf(folder)
    if not (folder / "tokenizer.json").exists():
        return config, QWEN_LENGTHS
    encode = Tokenizer(folder / "tokenizer.json").encode
    prompt = PromptBuilder(encode, config.video_token_id)
    system = int((prompt.opening().role == Role.SYSTEM).sum())
    lengths = {"system": system, "label": prompt.label_length, "query": len(encode(QUERY))}
    return config, dataclasses.replace(QWEN_LENGTHS, **lengths)


def plan(
    config: ModelConfig,
    window: WindowConfig,
    lengths: Lengths,
    *,
    chunk_seconds: float = 1.0,
    duration: float | None = None,
    dtype: str = "bfloat16",
    quantize: Scheme | None = None,
    streams: int = 1,
) -> MemoryPlan:
    """The memory of `streams` equal streams. Raises ConfigError when the window never closes and `duration` is not known."""
    text, itemsize = config.text, jnp.dtype(dtype).itemsize
    params = functional.abstract_params(config, jnp.dtype(dtype))
    if quantize is not None:
        params = jax.eval_shape(functools.partial(quantize_params, scheme=quantize), params)
    weights = jax.tree.leaves(params)
    slots = slots_by_role(window, lengths, chunk_seconds, duration)
    count = ring_shape(window, lengths, chunk_seconds, duration).slots
    one_copy = text.kv_shape.bytes(count, dtype, copies=1) * streams
    return MemoryPlan(
        parameters=sum(int(np.prod(leaf.shape)) * leaf.dtype.itemsize for leaf in weights),
        cache=2 * one_copy + SLOT_BYTES * count * streams,
        rotated=one_copy,
        working=working_bytes(config, lengths, count, itemsize) * streams,
        slots=slots,
    )


def working_bytes(config: ModelConfig, lengths: Lengths, slots: int, itemsize: int) -> int:
    """Bytes of the larger of two moments of a second: a vision block, or a decoder layer during prefill of a new turn.

    Each holds its activations and the inner ones of its MLP, and one block of float32 attention scores with its softmax.
    """
    text, vision = config.text, config.vision
    patches = vision.clip_patches(lengths.patches)
    seeing = (
        patches * (5 * vision.hidden_size + 2 * vision.intermediate_size) * itemsize
        + 2 * 4 * vision.num_heads * QUERY_BLOCK * patches
    )
    new = lengths.patches + lengths.system + lengths.label + lengths.query
    reading = (
        new * (5 * text.hidden_size + 2 * text.intermediate_size) * itemsize
        + 2 * 4 * text.num_heads * QUERY_BLOCK * slots
        + 8 * text.vocab_size
    )
    return max(seeing, reading)
