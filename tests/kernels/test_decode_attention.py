"""A decoded token is written to its slot and sees itself and what is older: one suite for all implementations."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels.decode_attention import decode_attention, reference
from pallas_kernels.hopper import blocks
from tests.kernels.implementations import Implementation, implementations, np_tree, race_found

SCALE = 0.2
STREAMS, SLOTS, HEADS, KV_HEADS, DIM = 2, 192, 6, 2, 128


@pytest.fixture(params=implementations("decode_attention", "xla", "gpu interpreter", "mosaic_gpu"))
def implementation(request):
    return request.param


def arrays(dtype, *, live=SLOTS, seed=0):
    """A token of each stream, and caches of which `live` slots hold tokens in no order, the newest one's place among them."""
    rng = np.random.default_rng(seed)

    def noise(*shape):
        return jnp.asarray(rng.standard_normal(shape), dtype)

    order = np.full((STREAMS, SLOTS), -1, np.int32)
    for row in order:
        row[rng.permutation(SLOTS)[:live]] = rng.permutation(live)
    slots = order.argmax(1)[:, None].astype(np.int32)
    new = noise(STREAMS, 1, HEADS, DIM), *(noise(STREAMS, 1, KV_HEADS, DIM) for _ in range(2))
    stores = (noise(STREAMS, KV_HEADS, SLOTS, DIM) for _ in range(3))
    angles = jnp.asarray(rng.uniform(0, 100, (STREAMS, 1, DIM // 2)), jnp.float32)
    newest = jnp.full((STREAMS, 1), live - 1, jnp.int32)
    return [*new, *stores, jnp.asarray(slots), newest, jnp.asarray(order), jnp.cos(angles), jnp.sin(angles)]


@pytest.mark.parametrize("live", [1, 70, SLOTS])
def test_equals_the_reference(implementation, live):
    given = arrays(implementation.dtype, live=live)
    expected = np_tree(reference.decode_attention(*given, scale=SCALE))
    out, *stores = implementation(*given, scale=SCALE)
    np.testing.assert_allclose(out, expected[0], atol=implementation.atol)
    for store, wanted in zip(stores, expected[1:], strict=True):  # a rotation may be rounded otherwise
        np.testing.assert_allclose(store, wanted, atol=implementation.atol)
        assert not np.array_equal(store, np.zeros_like(store))


def test_the_list_of_live_blocks_may_be_made_beforehand(implementation):
    """With the list of a cache in which other slots are live, a GPU's kernel sees other tokens: it is really read."""
    given = arrays(implementation.dtype, live=70)
    expected = implementation(*given, scale=SCALE)[0]
    np.testing.assert_array_equal(implementation(*given, None, blocks.live(given[8]), scale=SCALE)[0], expected)
    if implementation.name != "xla":
        nothing = blocks.live(jnp.full_like(given[8], -1))
        assert (implementation(*given, None, nothing, scale=SCALE)[0] != expected).any()


def test_padding_writes_nothing_and_gets_zero(implementation):
    given = arrays(implementation.dtype)
    given[6], given[7] = given[6].at[1].set(SLOTS), given[7].at[1].set(-1)
    out, *stores = implementation(*given, scale=SCALE)
    assert not out[1].any() and out[0].any()
    for store, before in zip(stores, np_tree(given[3:6]), strict=True):
        np.testing.assert_array_equal(store[1], before[1])
        assert (store[0] != before[0]).any()


def test_a_token_sees_itself_and_nothing_newer(implementation):
    """What lies in the slots of newer tokens, and in its own before it is written, does not matter."""
    given = arrays(implementation.dtype)
    given[7] = given[7] - 50
    newer = np.asarray(given[8] >= given[7])[:, None, :, None]
    given[6] = jnp.asarray(np.argmax(np.asarray(given[8] == given[7]), 1)[:, None].astype(np.int32))
    out = implementation(*given, scale=SCALE)[0]
    other = [*given]
    other[4], other[5] = (jnp.where(newer, 3.0, store).astype(store.dtype) for store in given[4:6])
    np.testing.assert_array_equal(implementation(*other, scale=SCALE)[0], out)
    other[2] = given[2] + 1.0
    assert (implementation(*other, scale=SCALE)[0] != out).any()


def test_lanes_say_whose_keys_and_values_they_are():
    """Rows 0 and 1 are lanes 2 and 0 of four; the workspace of rotated keys has a row a stream."""
    given = arrays(jnp.float32)
    lanes = jnp.asarray([2, 0])
    keys, values = (jnp.full((4, *store.shape[1:]), 7.0).at[lanes].set(store) for store in (given[3], given[5]))
    expected = decode_attention(*given, scale=SCALE)
    for function in (functools.partial(decode_attention, implementation="xla"), reference.decode_attention):
        out, wrote, rotated, values_after = function(*given[:3], keys, given[4], values, *given[6:], lanes, scale=SCALE)
        np.testing.assert_allclose(out, expected[0], atol=5e-6)
        np.testing.assert_allclose(rotated, expected[2], atol=5e-6)
        np.testing.assert_array_equal(wrote[lanes], expected[1])
        np.testing.assert_array_equal(values_after[lanes], expected[3])
        assert (wrote[jnp.asarray([1, 3])] == 7).all()


@pytest.mark.parametrize("simulator", implementations("decode_attention", "gpu races"))
def test_no_races(simulator: Implementation):
    given = arrays(simulator.dtype, live=100)
    out = simulator(*given, scale=SCALE)[0]
    np.testing.assert_allclose(out, np_tree(reference.decode_attention(*given, scale=SCALE))[0], atol=simulator.atol)
    assert not race_found(simulator.name)
