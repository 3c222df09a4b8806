"""Watching into a memory, as pure functions: each clip is read once, against what is kept of all clips before it.

    memory = begin(params, prefix, ...)             system turn
    memory = watch(params, memory, clip, ...)       vision tower -> prefill -> score -> compress

A clip attends to all that is kept and to itself; its last queries score what is kept; the policy decides (`cache.policies`).
Each layer keeps tokens of its own, so positions differ from layer to layer, for keys and for queries.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8

from pallas_kernels.cache_attention import cache_attention
from pallas_kernels.dispatch import Implementation
from pallas_kernels.flash_attention import flash_attention
from pallas_kernels.pooled_scores import pooled_scores
from svlm_jax.cache import kv, pages
from svlm_jax.cache import memory_state as mem
from svlm_jax.cache.frame_filter import novel
from svlm_jax.cache.memory_shape import MemoryShape, TokenMeta
from svlm_jax.cache.memory_state import MemoryState
from svlm_jax.cache.policies.base import MemoryPolicy
from svlm_jax.engine.sampling import SamplingBounds
from svlm_jax.models import functional, rope
from svlm_jax.models.config import ModelConfig
from svlm_jax.models.decoder import Decoder
from svlm_jax.models.functional import Params
from svlm_jax.models.vlm import VLM, VisionFeatures


@dataclasses.dataclass(frozen=True)
class QAConfig:
    """Everything that is fixed at compile time.

    Attributes:
      model, memory, shape: architecture, what is remembered, and the slots for it.
      stop: ids that end an answer. sampling: the room for how its tokens are chosen.
      cache_dtype: of keys and values.
      implementation: attention implementation, see `pallas_kernels.dispatch`.
    """

    model: ModelConfig
    memory: MemoryPolicy
    shape: MemoryShape
    stop: tuple[int, ...]
    sampling: SamplingBounds
    cache_dtype: str = "float32"
    implementation: Implementation = "auto"

    @property
    def scale(self) -> float:
        """What scores are multiplied by before the softmax."""
        return self.model.text.head_dim**-0.5


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Clip:
    """One clip of B streams, padded to a static number of frames; `valid` meta the temporal grids that are real.

    token: where grids have time stamps, the ids of all tokens, -1 where nothing stands; pads stand for cells.
    """

    frames: UInt8[Array, "B F 3 h w"]
    second: Float[Array, "B grids"]
    valid: Bool[Array, "B grids"]
    token: Int[Array, "B clip"] | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MemoryLayer:
    """One layer of a memory, with `meta` of its own."""

    keys: Float[Array, "B K S H"]
    values: Float[Array, "B K S H"]
    means: Float[Array, "B K pages H"] | None
    meta: TokenMeta


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ClipWrite:
    """A clip's tokens on their way into every layer: what they are, and the vision slot (B, clip) each goes to.

    A slot beyond the last means that the token is not kept. total: live slots with the clip; seen: tokens of the stream.
    """

    meta: TokenMeta
    slot: Int[Array, "B T"]
    total: Int[Array, "B"]
    seen: Int[Array, "B"]


def begin(params: Params, prefix: Int[Array, "B prefix"], *, config: QAConfig) -> MemoryState:
    """A memory that holds the prefix and no video yet."""
    module = functional.bind(config.model, params)
    text = config.model.text
    memory = mem.empty_memory(
        config.memory, config.shape, text.kv_shape, width=text.hidden_size, batch=len(prefix), dtype=config.cache_dtype
    )
    order = jnp.broadcast_to(jnp.arange(prefix.shape[1]), prefix.shape)
    tables = module.decoder.rope_tables(jnp.repeat(order[:, None].astype(jnp.float32), 3, axis=1), heads_axis=2)
    keys, values = list(memory.keys), list(memory.values)

    def attend(i: int, q: Array, k: Array, v: Array) -> Array:
        keys[i], values[i] = kv.write(keys[i], k, order), kv.write(values[i], v, order)
        q, k = rope.rotate(q, *tables), rope.rotate(k, *tables)
        return flash_attention(q, k, v, scale=config.scale, implementation=config.implementation)

    module.decoder.forward_with(module.embed(prefix), attend)
    return dataclasses.replace(memory, keys=tuple(keys), values=tuple(values))


def watch(params: Params, memory: MemoryState, clip: Clip, *, config: QAConfig) -> MemoryState:
    """Reads a clip against the memory, writes it in, and compresses what is over the budget."""
    module, shape = functional.bind(config.model, params), config.shape
    features = module.encode_video(clip.frames, implementation=config.implementation)
    valid, newest = clip.valid, memory.newest
    if config.memory.similar is not None:
        pictures = features.tokens.astype(jnp.float32).reshape(len(valid), shape.grids, shape.rows * shape.columns, -1).mean(2)
        valid, newest = novel(pictures, valid, newest, config.memory.similar)
    token, there = (jnp.repeat(grids, shape.cells, axis=1) for grids in (valid, clip.valid))
    end = memory.end
    if clip.token is None:
        meta = mem.incoming(memory, shape, clip.second)
    else:
        features = _between_marks(module, features, clip.token, shape)
        there &= clip.token >= 0
        token &= there
        written = jnp.where(there, clip.token, -1)
        meta = mem.incoming_stamped(memory, shape, clip.second, written, config.model.video_token_id)
        assert meta.block is not None  # with stamps there are blocks
        end = meta.block.begin[:, -1] + meta.block.span[:, -1]
    clip_write = ClipWrite(
        meta=meta,
        slot=jnp.where(token, memory.count[:, None] + jnp.cumsum(token, axis=1) - 1, shape.vision),
        total=memory.count + token.sum(1),
        seen=memory.seen + there.sum(1),
    )
    layers: list[MemoryLayer] = []
    counts: list[Array] = []

    def attend(i: int, q: Array, k: Array, v: Array) -> Array:
        layer = write(layer_of(memory, i), clip_write, k, v, shape)
        y, score = attend_clip(layer, clip_write, q, module.decoder, config)
        layer, count = compress(layer, score, clip_write, config, module.decoder)
        layers.append(layer)
        counts.append(count)
        return y.astype(v.dtype)

    module.decoder.forward_with(features.tokens.astype(module.dtype), attend, features.deepstack)
    return MemoryState(
        keys=tuple(layer.keys for layer in layers),
        values=tuple(layer.values for layer in layers),
        means=tuple(layer.means for layer in layers if layer.means is not None),
        meta=jax.tree.map(lambda *parts: jnp.stack(parts), *(layer.meta for layer in layers)),
        count=counts[0],
        seen=clip_write.seen,
        grids=memory.grids + clip.valid.sum(1),
        newest=newest,
        end=end,
    )


def _between_marks(module: VLM, features: VisionFeatures, token: Int[Array, "B clip"], shape: MemoryShape) -> VisionFeatures:
    """The features of a clip in the places of its pads, among the embeddings of time stamps and marks."""

    def spread(x: Array) -> Array:
        x = x.reshape(len(x), shape.grids, shape.rows * shape.columns, -1)
        x = jnp.pad(x, ((0, 0), (0, 0), (shape.before, shape.after), (0, 0)))
        return x.reshape(len(x), shape.clip, -1)

    features = jax.tree.map(spread, features)
    text = module.embed(jnp.maximum(token, 0))
    cell = (token == module.cfg.video_token_id)[..., None]
    return dataclasses.replace(features, tokens=jnp.where(cell, features.tokens.astype(text.dtype), text))


def layer_of(memory: MemoryState, i: int) -> MemoryLayer:
    means = memory.means[i] if memory.means else None
    return MemoryLayer(memory.keys[i], memory.values[i], means, jax.tree.map(lambda x: x[i], memory.meta))


# ----------------------------------------------------------------------------------------------- one layer


def write(layer: MemoryLayer, clip_write: ClipWrite, k: Array, v: Array, shape: MemoryShape) -> MemoryLayer:
    """The layer with the clip's keys and values (B, T, K, H) behind what it keeps."""
    slot = clip_write.slot + shape.prefix
    return dataclasses.replace(
        layer,
        keys=kv.write(layer.keys, k, slot),
        values=kv.write(layer.values, v, slot),
        meta=mem.write_meta(layer.meta, clip_write.meta, clip_write.slot),
    )


def attend_clip(
    layer: MemoryLayer, clip_write: ClipWrite, q: Float[Array, "B T N H"], decoder: Decoder, config: QAConfig
) -> tuple[Float[Array, "B T N H"], Float[Array, "B vision"] | None]:
    """The clip's attention over the layer and itself, and the score of every vision slot, where the policy goes by scores.

    A score is the softmax weight of the slot among all vision slots, averaged over the last r queries and all heads: vision
    looks at vision, text has no part in it (LiveVLM, section 3.2). Time stamps and marks have the score of their grid's best.
    """
    shape, tokens = config.shape, clip_write.slot.shape[1]
    live = jnp.arange(shape.vision) < clip_write.total[:, None]
    position, _ = mem.positions(layer.meta, live, shape, config.memory.positions)
    at = jnp.minimum(clip_write.slot, shape.vision - 1)
    own = jnp.take_along_axis(position, at[:, None], axis=2)
    q = rope.rotate(q, *decoder.rope_tables(own, heads_axis=2))
    keys = rope.rotate(layer.keys, *decoder.rope_tables(mem.with_prefix(position, shape.prefix), heads_axis=1))
    scale, implementation = config.scale, config.implementation

    query_index = jnp.where(clip_write.slot < shape.vision, shape.prefix + clip_write.slot, -1)
    vision_order = jnp.where(live, shape.prefix + jnp.arange(shape.vision), -1)
    prefix_order = jnp.broadcast_to(jnp.arange(shape.prefix), (len(q), shape.prefix))
    kv_index = jnp.concatenate([prefix_order, vision_order], axis=1)
    q = q.astype(keys.dtype)
    y = cache_attention(q, keys, layer.values, query_index, kv_index, scale=scale, implementation=implementation)
    if not config.memory.scored:
        return y, None
    r = min(config.memory.queries, tokens)
    block, own_block = layer.meta.block, clip_write.meta.block
    looks = query_index >= 0 if own_block is None else (query_index >= 0) & ~own_block.text
    real = jnp.where(looks, jnp.arange(tokens), -1)
    last = jnp.sort(jax.lax.top_k(real, r)[0], axis=1)  # -1 where the clip has fewer tokens
    index = jnp.maximum(last, 0)
    looking = jnp.take_along_axis(q, index[:, :, None, None], axis=1)
    order = jnp.where(last >= 0, jnp.take_along_axis(query_index, index, axis=1), -1)
    cells = vision_order if block is None else jnp.where(block.text, -1, vision_order)
    seen = jnp.concatenate([jnp.full_like(prefix_order, -1), cells], axis=1)
    score = pooled_scores(looking, keys, order, seen, scale=scale, implementation=implementation).mean(1)[:, shape.prefix :]
    return y, score if block is None else mem.marks_like_cells(score, layer.meta, live)


def compress(
    layer: MemoryLayer, score: Array | None, clip_write: ClipWrite, config: QAConfig, decoder: Decoder
) -> tuple[MemoryLayer, Int[Array, "B"]]:
    """The layer with what the policy keeps, moved to the front in order of the stream, and the slots that are live."""
    shape, memory = config.shape, config.memory
    index, count = mem.keep(memory, shape, layer.meta, score, clip_write.total, clip_write.seen)
    rows = jnp.concatenate([jnp.broadcast_to(jnp.arange(shape.prefix), (len(index), shape.prefix)), shape.prefix + index], 1)

    def front(cache: Array) -> Array:
        return cache.at[:, :, : rows.shape[1]].set(pages.gather(cache, rows))

    moved = mem.take_meta(layer.meta, index)
    meta = jax.tree.map(lambda old, new: old.at[:, : shape.budget].set(new), layer.meta, moved)
    layer = MemoryLayer(front(layer.keys), front(layer.values), layer.means, meta)
    if memory.page:
        layer = dataclasses.replace(layer, means=page_means(layer, count, config, decoder))
    return layer, count


def page_means(layer: MemoryLayer, count: Int[Array, "B"], config: QAConfig, decoder: Decoder) -> Float[Array, "B K pages H"]:
    """Mean keys of the long-term memory's pages; un-rotated but for the paper's ablation, which takes original positions."""
    shape, memory = config.shape, config.memory
    number = shape.pages(memory.page)
    keys = layer.keys[:, :, shape.prefix :]
    if memory.page_positions:
        live = jnp.arange(shape.vision) < count[:, None]
        position, _ = mem.positions(layer.meta, live, shape, "original")
        keys = rope.rotate(keys, *decoder.rope_tables(position, heads_axis=1))
    return pages.page_means(keys, jnp.maximum(count - shape.short, 0), page=memory.page, pages=number)
