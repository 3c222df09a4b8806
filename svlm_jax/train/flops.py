"""How much arithmetic training needs, and what share of a device's peak that is (MFU).

Convention: 2 operations for a multiplication and an addition; a forward pass counts once, a backward pass twice (once where
the weight is frozen: only activations need gradients; not at all behind the first trained weight). Attention counts the
pairs that a causal mask leaves, half of them; recomputation does not count. Counting all pairs would flatter by 1.3 times at
32,768 tokens and 7 B parameters.
"""

import math

import jax

from svlm_jax.data.chunks import Batch
from svlm_jax.models import flat_params
from svlm_jax.models.config import ModelConfig
from svlm_jax.train.state import Partition, abstract_flat

# Dense bfloat16, operations a second, from the makers' data sheets. By a part of jax.Device.device_kind.
PEAK = {
    "A100": 312e12,
    "H100": 989e12,
    "H200": 989e12,
    "B200": 2250e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
}


def peak(device: jax.Device) -> float | None:
    """Operations a second of one device; None when it is not listed."""
    return next((value for name, value in PEAK.items() if name.lower() in device.device_kind.lower()), None)


def count(config: ModelConfig, partition: Partition, batch: Batch) -> float:
    """Operations of one micro-batch of these shapes, over all devices. The head counts for all tokens."""
    rows, tokens = batch.tokens.shape
    text, vision = config.text, config.vision
    flat = abstract_flat(config)
    matrices = {
        path: math.prod(leaf.shape)
        for path, leaf in flat.items()
        if path.endswith("weight") and len(leaf.shape) > 1 and "norm" not in path
    }
    decoder = sum(n for path, n in matrices.items() if path.startswith(flat_params.LAYERS))
    if text.experts is not None:  # a token goes through those that it has chosen
        decoder += 3 * text.num_layers * text.experts.per_token * text.hidden_size * text.experts.intermediate_size
    head = text.hidden_size * text.vocab_size
    tower = sum(n for path, n in matrices.items() if path.startswith(flat_params.TOWER))
    learns_tower = any(partition.is_trained(path) for path in flat if path.startswith(flat_params.TOWER))
    learns_decoder = any(partition.is_trained(path) for path in flat if path.startswith(flat_params.LAYERS))
    pairs = rows * tokens * tokens / 2
    attention = 4 * text.num_layers * text.num_heads * text.head_dim * pairs
    forward = 2 * (decoder + head) * rows * tokens + attention
    total = (3 if learns_decoder else 2) * forward
    if not learns_decoder:  # the products of attention have no weights: both their sides need gradients
        total += attention
    _, clips, frames, _, height, width = batch.frames.shape
    patches = vision.clip_patches(vision.clip_tokens(frames, height, width))
    seen = 2 * tower * patches + 4 * vision.hidden_size * vision.clip_pairs(frames, height, width)
    return total + (3 if learns_tower else 1) * rows * clips * seen
