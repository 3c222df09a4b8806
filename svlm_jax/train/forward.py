"""The model as training runs it: whole samples at once, layers scanned and recomputed, weights gathered where they are used.

    tokens, frames --[inputs]--> x --[scan over layers]--> x --[norm, head, cross-entropy]--> sums
                    a shard_map        Explicit sharding       a shard_map

Inside the two shard_maps, and around attention, every device computes on samples of its own with the code of inference; the
embedding and the head stay where they lie (`vocabulary`).
"""

import dataclasses
import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from pallas_kernels.dispatch import Implementation
from pallas_kernels.flash_attention import LSE_NAME, OUT_NAME, flash_attention
from svlm_jax.data.chunks import Batch
from svlm_jax.models import flat_params, functional, rope
from svlm_jax.models.config import ModelConfig
from svlm_jax.models.experts import MoE, balance_loss
from svlm_jax.models.flat_params import Flat
from svlm_jax.models.layers import SwiGLU, rms_norm
from svlm_jax.models.vlm import VisionFeatures, place
from svlm_jax.sharding import AXES, ROWS, P, spec
from svlm_jax.train import lora
from svlm_jax.train.loss import cross_entropy, learned_first
from svlm_jax.train.vocabulary import Head, lookup

EMBED, HEAD = "decoder.embed.weight", "decoder.head.weight"
Remat = Literal["full", "attention", "none"]


@dataclasses.dataclass(frozen=True)
class Compute:
    """How the forward pass is computed; none of it changes what is computed.

    Attributes:
      dtype: of weights and activations in use; the master copy is float32.
      remat: what the backward pass computes again: whole layers ("full"), all but their attention ("attention"), nothing.
      loss_rows: learned tokens whose logits exist at once.
      clips: clips that go through the vision tower at once; 0 for all of a device.
      attention: implementation of the attention kernels.
    """

    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    remat: Remat = "full"
    loss_rows: int = 512
    clips: int = 1
    attention: Implementation = "auto"


def loss_sums(
    config: ModelConfig, compute: Compute, trained: Flat, frozen: Flat, batch: Batch, *, scale: float = 1.0
) -> Float[Array, "3"]:
    """Weighted sums over a batch's learned tokens, float32: cross-entropy (nats), tokens, right first guesses.

    `scale` is that of low-rank adapters among `trained`. Needs the mesh of the arrays to be set (`jax.set_mesh`).
    """
    weights = lora.Weights({**frozen, **trained}, jnp.dtype(compute.dtype), scale)
    inputs = _inputs(config, compute, weights, trained, batch)
    x, load = _layers(config, compute, weights, inputs, batch.valid)
    x = rms_norm(x, weights.used("decoder.norm.weight"), config.text.rms_norm_eps)
    sums = _loss(config, compute, weights, x, batch)
    if config.text.experts is None:
        return sums
    # A mean, like the cross-entropy that will be divided by all tokens: each micro-batch counts with its learned ones.
    balance = balance_loss(load.sum(0), config.text.num_layers * batch.valid.sum())
    return sums.at[0].add(config.text.experts.balance * balance * sums[1])


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Inputs:
    """What the layers are given: embeddings with vision in its places, cosines and sines, `VisionFeatures.deepstack` there."""

    x: Float[Array, "B T D"]
    rope_tables: tuple[Float[Array, "B T 1 half"], Float[Array, "B T 1 half"]]
    deepstack: tuple[Float[Array, "B T D"], ...]


def _inputs(config: ModelConfig, compute: Compute, weights: lora.Weights, trained: Flat, batch: Batch) -> _Inputs:
    tower = {path: weights.used(path) for path in weights.flat if path.startswith(flat_params.TOWER)}
    learns = any(path.startswith(flat_params.TOWER) for path in trained)
    text = config.text

    def local(table: jax.Array, tower: Flat, batch: Any) -> _Inputs:
        x = lookup(table, batch.tokens, compute.dtype)
        deepstack: tuple[jax.Array, ...] = ()
        if batch.frames.shape[1]:
            clips = batch.frames.reshape(-1, *batch.frames.shape[2:])
            seen = _see(config, compute, tower, clips, learns)
            seen = jax.tree.map(lambda array: array.reshape(len(x), -1, array.shape[-1]), seen)
            where = batch.tokens == config.video_token_id
            deepstack = tuple(jax.vmap(place)(jnp.zeros_like(x), where, array) for array in seen.deepstack)
            x = jax.vmap(place)(x, where, seen.tokens)
        angles = rope.mrope_angles(batch.positions, head_dim=text.head_dim, theta=text.rope_theta, axes=text.rope_axes)
        return _Inputs(x, rope.cos_sin(angles[:, :, None]), deepstack)

    # The table in float32: what many tokens add to one word's gradient would be lost in bfloat16.
    run = jax.shard_map(local, in_specs=(spec(EMBED), P(), P(ROWS)), out_specs=P(ROWS), check_vma=False)
    return run(weights.flat[EMBED], tower, batch)


def _see(config: ModelConfig, compute: Compute, tower: Flat, clips: jax.Array, learns: bool) -> VisionFeatures:
    """uint8 clips (n, F, 3, height, width) -> their features (n, M, D)."""

    def see(clips: jax.Array, tower: Flat) -> VisionFeatures:
        module = functional.bind_tower(config, flat_params.nest(tower, flat_params.TOWER))
        return module.encode(clips, compute.attention)

    if not learns:
        tower = lax.stop_gradient(tower)
    elif compute.remat != "none":
        see = jax.checkpoint(see)
    if not 0 < compute.clips < len(clips):
        return see(clips, tower)
    return lax.map(lambda clip: jax.tree.map(lambda x: x[0], see(clip[None], tower)), clips, batch_size=compute.clips)


def _layers(
    config: ModelConfig, compute: Compute, weights: lora.Weights, inputs: _Inputs, valid: Any
) -> tuple[Float[Array, "B T D"], jax.Array]:
    """Hidden states behind the last layer, and the load of every layer's experts (L, 2, E), (L, 0) without any."""
    rope_tables = inputs.rope_tables
    deepstack = jnp.stack(inputs.deepstack) if inputs.deepstack else None
    heads = P(ROWS, None, "tensor", None)

    def attend(query: jax.Array, keys: jax.Array, values: jax.Array) -> jax.Array:
        # Padding comes last, and nothing that is learned sees it: plain causal attention will do.
        local = functools.partial(flash_attention, scale=config.text.head_dim**-0.5, implementation=compute.attention)
        attention = jax.shard_map(local, in_specs=(heads,) * 3, out_specs=heads, check_vma=False)
        return attention(rope.rotate(query, *rope_tables), rope.rotate(keys, *rope_tables), values)

    def layer(x: jax.Array, scanned: tuple[Any, Flat]) -> tuple[jax.Array, jax.Array]:
        number, stacked = scanned
        load = jnp.zeros(0)

        def run_mlp(mlp: SwiGLU | MoE, x: jax.Array) -> jax.Array:
            nonlocal load
            if not isinstance(mlp, MoE):
                return mlp(x)
            y, load = _experts(mlp, x, valid)
            return y

        here = dataclasses.replace(weights, flat=stacked)
        used = {path: here.used(path, of_layer=True) for path in here.paths()}
        module = functional.bind_layer(config, flat_params.nest(used, flat_params.LAYERS))
        x = module.forward_with(x, attend, run_mlp)
        if deepstack is not None:
            added = lax.dynamic_index_in_dim(deepstack, jnp.minimum(number, len(deepstack) - 1), keepdims=False)
            x = x + jnp.where(number < len(deepstack), added, 0)
        return x, load

    if compute.remat != "none":
        policies = jax.checkpoint_policies
        keep = policies.save_only_these_names(OUT_NAME, LSE_NAME) if compute.remat == "attention" else None
        layer = jax.checkpoint(layer, prevent_cse=False, policy=keep or policies.nothing_saveable)
    stacked = {path: leaf for path, leaf in weights.flat.items() if path.startswith(flat_params.LAYERS)}
    return lax.scan(layer, inputs.x, (jnp.arange(config.text.num_layers), stacked))


def _experts(mlp: MoE, x: jax.Array, valid: jax.Array) -> tuple[jax.Array, Float[Array, "2 experts"]]:
    """A mixture whose experts lie along tensor: each device adds up its own, and the sums are added."""
    graph, state = nnx.split(mlp)

    def local(state: Any, x: jax.Array, valid: jax.Array) -> tuple[jax.Array, jax.Array]:
        module = nnx.merge(graph, state)
        first = lax.axis_index("tensor") * module.experts.gate_up[...].shape[0]
        y, load = module.share(x, valid, first)
        return lax.psum(y, "tensor"), load[None]

    cut = jax.tree.map(lambda leaf: jax.typeof(leaf).sharding.spec, state)
    run = jax.shard_map(local, in_specs=(cut, P(ROWS), P(ROWS)), out_specs=(P(ROWS), P(ROWS)), check_vma=False)
    y, load = run(state, x, valid)
    return y, load.sum(0)


def _loss(config: ModelConfig, compute: Compute, weights: lora.Weights, hidden: jax.Array, batch: Any) -> Float[Array, "3"]:
    tied = config.text.tie_word_embeddings
    name = EMBED if tied else HEAD

    def local(hidden: jax.Array, part: jax.Array, labels: jax.Array, weight: jax.Array) -> Float[Array, "1 3"]:
        rows, targets, weighs = learned_first(hidden, labels, weight)
        sums = cross_entropy(rows, Head.of(part.T if tied else part), targets, weighs, compute.loss_rows)
        count = jnp.where(lax.axis_index("tensor") == 0, jnp.sum(weighs), 0)
        return jnp.stack([sums[0], count, sums[1]])[None]

    run = jax.shard_map(local, in_specs=(P(ROWS), spec(name), P(ROWS), P(ROWS)), out_specs=P(AXES), check_vma=False)
    return jnp.sum(run(hidden, weights.flat[name].astype(compute.dtype), batch.labels, batch.weight), 0)
