"""One layer of a memory takes a clip: dense attention and scores written out, for two streams of different fill."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from svlm_jax.cache.memory_shape import TokenMeta
from svlm_jax.cache.memory_state import memory_shape
from svlm_jax.cache.policies import memory_policy
from svlm_jax.checkpoint.random import random_config
from svlm_jax.engine import remember
from svlm_jax.engine.remember import ClipWrite, MemoryLayer, QAConfig
from svlm_jax.engine.sampling import Sampling

B, PREFIX, R = 2, 3, 4
MEMORY = memory_policy("vsb+par", budget=12, clip_frames=4, recent_frames=2, queries=R, page=2)
SHAPE = memory_shape(MEMORY, prefix=PREFIX, grid=(2, 1, 3), seconds=2.0, step=1.0)
CONFIG = QAConfig(random_config("qwen2_5_vl"), MEMORY, SHAPE, (), Sampling().bounds, implementation="xla")
K, N, H = CONFIG.model.text.num_kv_heads, CONFIG.model.text.num_heads, CONFIG.model.text.head_dim
TOKENS, COUNT = SHAPE.clip, np.asarray([12, 6])  # live vision slots before the clip
PLACES = [[0, 1, 4, 5, 6, 8, 9, 11, 12, 14, 16, 17], [0, 1, 2, 3, 4, 5]]


class Still:
    """A decoder whose positions turn nothing, so that dense attention needs none."""

    def rope_tables(self, positions, *, heads_axis):
        angles = jnp.expand_dims(jnp.zeros((*positions.shape[::2], H // 2)), heads_axis)
        return jnp.cos(angles), jnp.sin(angles)


def clip(rng, *, valid=TOKENS):
    """A layer with the clip already written behind what it holds, and the clip; stream 1 brings only `valid` tokens."""
    place = np.zeros((B, SHAPE.vision), np.int32)
    slot = np.full((B, TOKENS), SHAPE.vision)
    new = [TOKENS, valid]
    for b in range(B):
        place[b, : COUNT[b]] = PLACES[b]
        place[b, COUNT[b] : COUNT[b] + new[b]] = 18 + np.arange(new[b])
        slot[b, : new[b]] = COUNT[b] + np.arange(new[b])
    meta = TokenMeta(place, place // 3, np.zeros_like(place), place % 3, place // 3 * np.float32(2))
    keys, values = (rng.normal(size=(B, K, SHAPE.slots, H)).astype(np.float32) for _ in range(2))
    clip_write = ClipWrite(meta, slot, COUNT + np.asarray(new), np.asarray([24, 24]))
    q = rng.normal(size=(B, TOKENS, N, H)).astype(np.float32)
    return MemoryLayer(keys, values, None, meta), clip_write, q, new


def softmax(x):
    weight = np.exp(x - x.max())
    return weight / weight.sum()


@functools.cache
def programs():
    still = Still()
    return (
        jax.jit(lambda layer, clip_write, q: remember.attend_clip(layer, clip_write, q, still, CONFIG)),
        jax.jit(lambda layer, score, clip_write: remember.compress(layer, score, clip_write, CONFIG, still)),
    )


@pytest.mark.parametrize("valid", [TOKENS, 3])
def test_attention_sees_everything_and_scores_are_vision_looking_at_vision(valid):
    layer, clip_write, q, new = clip(np.random.default_rng(0), valid=valid)
    y, score = map(np.asarray, programs()[0](layer, clip_write, q))
    for b in range(B):
        first, expected = PREFIX + COUNT[b], np.zeros(SHAPE.vision)
        last = range(max(new[b] - R, 0), new[b])
        for t in range(new[b]):
            for n in range(N):
                keys, values = layer.keys[b, n // (N // K)], layer.values[b, n // (N // K)]
                seen = first + t + 1
                weight = softmax(keys[:seen] @ q[b, t, n] * H**-0.5)
                np.testing.assert_allclose(y[b, t, n], weight @ values[:seen], atol=1e-4)
                if t in last:
                    vision = softmax(keys[PREFIX:seen] @ q[b, t, n] * H**-0.5)
                    expected[: seen - PREFIX] += vision / (N * len(last))
        np.testing.assert_allclose(score[b], expected, atol=1e-5)
        assert score[b].sum() == pytest.approx(1.0, abs=1e-4)


def test_survivors_move_to_the_front_with_their_keys_values_and_marks():
    rng = np.random.default_rng(1)
    layer, clip_write, _, new = clip(rng, valid=3)
    score = rng.random((B, SHAPE.vision), np.float32)
    kept, count = programs()[1](layer, score, clip_write)
    assert count.tolist() == [12, 9]  # the budget, and all that the emptier stream has
    for b in range(B):
        places = np.asarray(kept.meta.place)[b, : count[b]].tolist()
        assert places == sorted(places) and places[-3:] == [18 + new[b] - 3 + i for i in range(3)]
        before = layer.meta.place[b, : COUNT[b] + new[b]].tolist()
        rows = [PREFIX + before.index(place) for place in places]
        for mine, whole in ((kept.keys, layer.keys), (kept.values, layer.values)):
            np.testing.assert_array_equal(np.asarray(mine)[b, :, :PREFIX], whole[b, :, :PREFIX])
            np.testing.assert_array_equal(np.asarray(mine)[b, :, PREFIX : PREFIX + count[b]], whole[b][:, rows])
        long = count[b] - 3
        pages = np.asarray(kept.keys)[b, :, PREFIX : PREFIX + long // 2 * 2].reshape(K, -1, 2, H).mean(2)
        np.testing.assert_allclose(np.asarray(kept.means)[b, :, : long // 2], pages, atol=1e-6)
