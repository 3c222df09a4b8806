"""Properties of the compiled second: slot order means nothing, pieces equal the whole, bfloat16 follows float32."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from svlm_jax.cache import ring
from svlm_jax.streaming import session as sessions
from svlm_jax.streaming.vlm import StreamingVLM
from tests.streaming import streams
from tests.streaming.streams import SETTINGS, model, run

GREEDY = {"sampling": streams.sampling(temperature=0.0), "keep_logits": True}


def permuted(state, shape, seed: int):
    """The same stream with its text slots in another order (patches have places of their own)."""
    patches = shape.blocks * shape.block
    order = np.arange(shape.slots)
    np.random.default_rng(seed).shuffle(order[patches:])
    slots = jax.tree.map(lambda x: x[..., order], state.slots)
    keys, values = (tuple(layer[:, :, order] for layer in layers) for layers in (state.keys, state.values))
    return dataclasses.replace(state, slots=slots, keys=keys, values=values)


def test_permuting_slots_changes_nothing():
    stream = model().stream(SETTINGS, **GREEDY)
    run(stream, 0, 6)
    shuffled = stream.fork()
    shuffled.state = permuted(stream.state, stream.config.ring, seed=1)
    for i in range(6, 10):
        assert stream.feed(streams.chunk(i)).tokens == shuffled.feed(streams.chunk(i)).tokens
        np.testing.assert_allclose(stream.last.logits, shuffled.last.logits, atol=1e-4)
    order, live = (np.asarray(x)[0] for x in jax.vmap(ring.in_order)(stream.state.slots))
    other, _ = (np.asarray(x)[0] for x in jax.vmap(ring.in_order)(shuffled.state.slots))
    assert (order[:live] != other[:live]).any()  # the slots do differ
    np.testing.assert_array_equal(stream.state.slots.token[0][order[:live]], shuffled.state.slots.token[0][other[:live]])


def test_an_opening_in_small_pieces_equals_one_in_large(monkeypatch):
    text = "The home team leads by two goals to one. " * 2
    whole = model().stream(
        SETTINGS, previous_text=text, window=dataclasses.replace(SETTINGS.window, sink=60, tail=60), **GREEDY
    )
    pieces = whole.fork()
    run(whole, 0, 1)
    monkeypatch.setattr(sessions, "PIECE", 16)
    run(pieces, 0, 1)
    np.testing.assert_allclose(whole.last.logits, pieces.last.logits, atol=1e-4)


def test_bfloat16_follows_float32():
    """Weights and cache in bfloat16: the same distribution within its precision, half the bytes."""
    wide = model().stream(SETTINGS, **GREEDY)
    narrow = StreamingVLM.from_pretrained(streams.GOLDEN / "streamingvlm/checkpoint", dtype="bfloat16").stream(
        SETTINGS, **GREEDY
    )
    run(wide, 0, 1)
    run(narrow, 0, 1)
    assert narrow.state.keys[0].dtype == narrow.state.values[0].dtype == jnp.bfloat16
    have, want = (np.asarray(s.last.logits[0, 0]) for s in (narrow, wide))
    assert have.dtype == np.float32
    assert np.abs(have - want).max() < 0.03 * np.ptp(want)
    assert wide.config.cache_bytes.stored == 2 * narrow.config.cache_bytes.stored


def test_the_cache_costs_1_5_times_its_keys_and_values():
    stream = model().stream(SETTINGS)
    run(stream, 0, 1)
    text, config = stream.config.model.text, stream.config
    floor = 2 * text.num_layers * config.ring.slots * text.num_kv_heads * text.head_dim * 4
    bytes_, state = config.cache_bytes, stream.state
    assert sum(x.nbytes for x in (*state.keys, *state.values)) == bytes_.stored == floor
    assert sum(x.nbytes for x in jax.tree.leaves(state.slots)) == bytes_.metadata
    assert 2 * bytes_.rotated == floor  # a second's workspace
    assert bytes_.total == bytes_.stored + bytes_.rotated + bytes_.metadata
