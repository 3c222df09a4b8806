"""Writing into the cache: the right rows, nothing where a token is not kept, and no pass over the whole cache."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from svlm_jax.cache import kv

B, K, C, H = 2, 3, 17, 8
dtypes = pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])


@dtypes
@pytest.mark.parametrize("tokens", [1, 4])
def test_rows_go_to_their_slots_and_the_rest_stays(dtype, tokens):
    rng = np.random.default_rng(0)
    cache = jnp.asarray(rng.normal(size=(B, K, C, H)), dtype)
    new = jnp.asarray(rng.normal(size=(B, tokens, K, H)), jnp.float32)
    slots = np.stack([rng.permutation(C)[:tokens] for _ in range(B)])
    slots[1, 0] = C  # not kept
    expected = np.array(cache)
    for b in range(B):
        for t in range(tokens):
            if slots[b, t] < C:
                expected[b, :, slots[b, t]] = new[b, t].astype(dtype)
    written = jax.jit(kv.write)(cache, new, jnp.asarray(slots))
    assert written.dtype == dtype and np.array_equal(np.asarray(written), expected)


@pytest.mark.parametrize("name", ["int8", "fp8"])
def test_numbers_of_8_bits_have_a_scale_a_slot_and_head(name):
    """A large token leaves the small ones beside it as exact as they were; empty slots stay zero."""
    rng = np.random.default_rng(0)
    new = jnp.asarray(rng.normal(size=(B, 2, K, H)) * np.asarray([1e-3, 1e3])[:, None, None], jnp.float32)
    store = kv.KVStore.empty(kv.KVShape(1, K, H), B, C, name)
    slots = jnp.asarray([[3, 5], [C, 0]])
    written = jax.jit(lambda store, new: store.write(0, new, -new, 2 * new, slots))(store, new)
    for kept, sign in zip((*written.keys, *written.values, *written.rotated), (1, -1, 2), strict=True):
        assert kept.values.dtype.itemsize == 1 and kept.scale.shape == (B, K, C)
        for b, t, slot in ((0, 0, 3), (0, 1, 5), (1, 1, 0)):
            wanted = sign * np.asarray(new[b, t])
            most = np.abs(wanted).max(-1, keepdims=True)
            assert (
                np.abs(np.asarray(kept.wide)[b, :, slot] - wanted) <= most * (0.5 / 127 if name == "int8" else 1 / 16)
            ).all()
        assert (np.asarray(kept.wide) != 0).any(-1).sum() == 3 * K
    nbytes = sum(x.nbytes for x in jax.tree.leaves((written.keys, written.values)))
    assert nbytes == B * kv.KVShape(1, K, H).bytes(C, name)


@dtypes
def test_a_decode_loop_writes_in_place(dtype):
    cache, new = jnp.zeros((1, K, C, H), dtype), jnp.ones((1, 1, K, H), dtype)

    def loop(cache, new):
        return jax.lax.fori_loop(0, 9, lambda i, cache: kv.write(cache, new, jnp.full((1, 1), i)), cache)

    program = jax.jit(loop, donate_argnums=0).lower(cache, new).compile().as_text()
    whole = rf"\[1,{K},{C},{H}\]\S* "
    assert not re.search(whole + r"copy\(", program)
    if dtype == jnp.bfloat16:
        assert not re.search("f32" + whole, program), "the whole cache goes through float32"
