"""How many bytes a stream takes on a device: what is fixed exactly, what a second needs on top as an estimate."""

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from svlm_jax.cache.number_formats import EightBit
from svlm_jax.cache.ring import Role
from svlm_jax.cache.sizes import cache_bytes
from svlm_jax.cache.window import Lengths, WindowConfig, ring_shape, slots_by_role
from svlm_jax.checkpoint.named import Description
from svlm_jax.engine.sampling import Sampling
from svlm_jax.models import functional, registry
from svlm_jax.models.config import ModelConfig
from svlm_jax.models.quant import quantize_params
from svlm_jax.prompt.commentary import PromptBuilder
from svlm_jax.prompt.tokenizer import Tokenizer
from svlm_jax.streaming.settings import StreamSettings
from svlm_jax.video.source import frames_per_chunk

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
QWEN_STAMP = 12  # tokens of "<9999999.0 seconds>"
QWEN_LENGTHS = Lengths(system=11, previous=0, label=22, query=9, reply=Sampling().max_new_tokens, patches=0)


def lengths_of(about: Description, settings: StreamSettings, height: int, width: int) -> Lengths:
    """The token counts of a stream's parts, for frames of that size (as scaled for the model).

    Without a tokenizer, which a preset does not have, they are those of Qwen's vocabulary and the default prompt.
    """
    count = frames_per_chunk(settings.fps, settings.chunk_seconds, about.config.vision.grid_frames)
    grid = about.config.vision.clip_grid(count, height, width, settings.fps)
    own = {"patches": grid.patches}
    if registry.record(about.config).layout.time_stamp is not None:
        own["marks"] = grid.t * (QWEN_STAMP + 2)
    if settings.sampling is not None:
        own["reply"] = settings.sampling.max_new_tokens
    if about.folder is not None and (about.folder / "tokenizer.json").exists():
        encode = Tokenizer(about.folder / "tokenizer.json").encode
        prompt = PromptBuilder(about.config, encode, system=settings.system)
        own["system"] = int((prompt.opening().role == Role.SYSTEM).sum())
        own["label"], own["marks"] = prompt.label_length, prompt.marks_length(grid)
        own["query"] = len(encode(settings.query, literal=True)) if settings.query else 0
    return dataclasses.replace(QWEN_LENGTHS, **own)


def plan(
    config: ModelConfig,
    window: WindowConfig,
    lengths: Lengths,
    *,
    chunk_seconds: float = 1.0,
    duration: float | None = None,
    dtype: str = "bfloat16",
    quantize: EightBit | None = None,
    cache_dtype: str | None = None,
    streams: int = 1,
) -> MemoryPlan:
    """The memory of `streams` equal streams.

    dtype: of what is computed; quantize: of the decoder's weights, if of 8 bits; cache_dtype: of keys and values, None = dtype.
    Raises ConfigError when the window never closes and `duration` is not known.
    """
    text, itemsize = config.text, jnp.dtype(dtype).itemsize
    slots = slots_by_role(window, lengths, chunk_seconds, duration)
    count = ring_shape(window, lengths, chunk_seconds, duration).slots
    cache = cache_bytes(text.kv_shape, count, cache_dtype or dtype, streams=streams)
    return MemoryPlan(
        parameters=weights_bytes(config, dtype, quantize),
        cache=cache.stored + cache.metadata,
        rotated=cache.rotated,
        working=working_bytes(config, lengths, count, itemsize) * streams,
        slots=slots,
    )


@functools.lru_cache(maxsize=32)
def weights_bytes(config: ModelConfig, dtype: str, quantize: EightBit | None) -> int:
    """Bytes of a model's parameters."""
    params = functional.abstract_params(config, jnp.dtype(dtype))
    if quantize is not None:
        params = jax.eval_shape(functools.partial(quantize_params, scheme=quantize), params)
    return sum(int(np.prod(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))


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
