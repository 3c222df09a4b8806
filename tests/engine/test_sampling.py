"""Choosing the next token does what `transformers` does, step by step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from svlm_jax.engine.sampling import Sampling, SamplingBounds, key_of, penalize, pick, truncate
from svlm_jax.errors import ConfigError


def settled(sampling):
    """The numbers and the bounds that `truncate` and `penalize` take."""
    return sampling.limits, sampling.bounds


def drawn(keys, sampling, count):
    """`count` draws from the same logits."""
    limits = jax.tree.map(lambda x: jnp.full(count, x), sampling.limits)
    logits = jnp.tile(jnp.asarray(LOGITS), (count, 1))
    return pick(logits, jnp.zeros((count, 64), bool), keys, limits, sampling.bounds)


LOGITS = np.random.default_rng(0).normal(size=64).astype(np.float32) * 3


def same_ids(ours, theirs):
    np.testing.assert_array_equal(np.isfinite(ours), np.isfinite(theirs))
    kept = np.isfinite(theirs)
    np.testing.assert_allclose(np.asarray(ours)[kept], theirs[kept], rtol=1e-6)


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(0.9, 0, 1.0), (0.7, 5, 1.0), (1.3, 0, 0.8), (0.9, 7, 0.6), (1.0, 1, 0.5), (0.5, 0, 1e-4), (0.9, 1000, 0.95)],
)
def test_truncation_equals_transformers(temperature, top_k, top_p):
    torch = pytest.importorskip("torch")
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    theirs = TemperatureLogitsWarper(temperature)(None, torch.tensor(LOGITS)[None])
    if top_k:
        theirs = TopKLogitsWarper(top_k)(None, theirs)
    if top_p < 1:
        theirs = TopPLogitsWarper(top_p)(None, theirs)
    ours = truncate(jnp.asarray(LOGITS), *settled(Sampling(temperature=temperature, top_k=top_k, top_p=top_p)))
    same_ids(ours, theirs[0].numpy())


def test_penalty_equals_transformers():
    torch = pytest.importorskip("torch")
    from transformers import RepetitionPenaltyLogitsProcessor

    ids = [3, 3, 5, 60]
    theirs = RepetitionPenaltyLogitsProcessor(1.3)(torch.tensor([ids]), torch.tensor(LOGITS)[None])[0].numpy()
    seen = jnp.zeros(64, bool).at[jnp.asarray(ids)].set(True)
    same_ids(penalize(jnp.asarray(LOGITS), seen, *settled(Sampling(repetition_penalty=1.3))), theirs)
    spared = penalize(jnp.asarray(LOGITS), seen, *settled(Sampling(repetition_penalty=1.3, unpenalized=(5,))))
    assert spared[5] == LOGITS[5] and spared[3] != LOGITS[3]


def test_draws_follow_the_truncated_distribution():
    sampling = Sampling(temperature=0.8, top_k=6, top_p=0.9, repetition_penalty=1.0)
    keys = jax.random.key_data(jax.random.split(jax.random.key(0, impl="threefry2x32"), 20_000))
    want = jax.nn.softmax(truncate(jnp.asarray(LOGITS), *settled(sampling)))
    have = np.bincount(np.asarray(drawn(keys, sampling, len(keys))), minlength=64) / len(keys)
    np.testing.assert_allclose(have, want, atol=0.015)
    assert have[np.asarray(want) == 0].sum() == 0


def test_greedy_takes_the_best_that_is_not_suppressed():
    best, second = np.argsort(LOGITS)[::-1][:2]
    assert drawn(key_of(0)[None], Sampling(temperature=0), 1) == best
    assert drawn(key_of(0)[None], Sampling(temperature=0, suppress=(int(best),)), 1) == second
    gone = penalize(jnp.asarray(LOGITS), jnp.zeros(64, bool), *settled(Sampling(suppress=(int(best),))))
    assert gone[best] == -np.inf and np.isfinite(gone).sum() == 63


def test_each_lane_has_settings_of_its_own():
    """Greedy, the published settings, and a sharp distribution, in one program; each draws what it draws alone."""
    bounds, keys = SamplingBounds(20, 50), jnp.stack([key_of(seed) for seed in range(3)])
    each = [Sampling(temperature=0.0, top_k=0), Sampling(), Sampling(temperature=1.5, top_k=9, top_p=0.7)]
    limits = jax.tree.map(lambda *xs: jnp.stack(xs), *map(bounds.limits, each))
    together = pick(jnp.tile(jnp.asarray(LOGITS), (3, 1)), jnp.zeros((3, 64), bool), keys, limits, bounds)
    assert together.tolist() == [int(drawn(keys[i : i + 1], sampling, 1)[0]) for i, sampling in enumerate(each)]
    categorical = jax.random.categorical(
        jax.random.wrap_key_data(keys[1], impl="threefry2x32"), truncate(jnp.asarray(LOGITS), *settled(each[1]))
    )
    assert together[1] == categorical and together[0] == LOGITS.argmax()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"max_new_tokens": 21}, "max_new_tokens=21"),
        ({"top_k": 51}, "top_k=51"),
        ({"top_k": 0}, "top_k=0"),
        ({"suppress": (1,)}, "suppress="),
    ],
)
def test_what_a_program_has_no_room_for_is_refused(changes, named):
    with pytest.raises(ConfigError, match=named):
        SamplingBounds(20, 50).limits(Sampling(**changes))


def test_settings_come_from_the_checkpoint_unless_given():
    generation = {"top_k": 1, "top_p": 0.001, "temperature": 1e-6, "repetition_penalty": 1.2, "suppress_tokens": [4]}
    sampling = Sampling.from_generation_config(generation, top_p=None, max_new_tokens=5)
    assert (sampling.top_k, sampling.top_p, sampling.suppress, sampling.max_new_tokens) == (1, 0.001, (4,), 5)
    assert (sampling.temperature, sampling.repetition_penalty) == (
        0.9,
        1.05,
    )  # the published inference code passes these itself


@pytest.mark.parametrize(
    "bad", [{"temperature": -1}, {"top_k": -1}, {"top_p": 0}, {"top_p": 1.5}, {"repetition_penalty": 0}, {"max_new_tokens": 0}]
)
def test_impossible_settings(bad):
    (name,) = bad
    with pytest.raises(ConfigError, match=f"{name}="):
        Sampling(**bad)
