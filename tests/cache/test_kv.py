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
