"""Choosing the next token does what `transformers` does, step by step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from svlm_jax.engine.sampling import Sampling, penalize, pick, truncate
from svlm_jax.errors import ConfigError

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
    ours = truncate(jnp.asarray(LOGITS), Sampling(temperature=temperature, top_k=top_k, top_p=top_p))
    same_ids(ours, theirs[0].numpy())


def test_penalty_equals_transformers():
    torch = pytest.importorskip("torch")
    from transformers import RepetitionPenaltyLogitsProcessor

    ids = [3, 3, 5, 60]
    theirs = RepetitionPenaltyLogitsProcessor(1.3)(torch.tensor([ids]), torch.tensor(LOGITS)[None])[0].numpy()
    seen = jnp.zeros(64, bool).at[jnp.asarray(ids)].set(True)
    same_ids(penalize(jnp.asarray(LOGITS), seen, Sampling(repetition_penalty=1.3)), theirs)
    spared = penalize(jnp.asarray(LOGITS), seen, Sampling(repetition_penalty=1.3, unpenalized=(5,)))
    assert spared[5] == LOGITS[5] and spared[3] != LOGITS[3]


def test_draws_follow_the_truncated_distribution():
    sampling = Sampling(temperature=0.8, top_k=6, top_p=0.9, repetition_penalty=1.0)
    keys = jax.random.split(jax.random.key(0), 20_000)
    drawn = jax.vmap(lambda key: pick(jnp.asarray(LOGITS), jnp.zeros(64, bool), key, sampling))(keys)
    want = jax.nn.softmax(truncate(jnp.asarray(LOGITS), sampling))
    have = np.bincount(np.asarray(drawn), minlength=64) / len(keys)
    np.testing.assert_allclose(have, want, atol=0.015)
    assert have[np.asarray(want) == 0].sum() == 0


def test_greedy_takes_the_best_that_is_not_suppressed():
    best, second = np.argsort(LOGITS)[::-1][:2]
    key, seen = jax.random.key(0), jnp.zeros(64, bool)
    assert pick(jnp.asarray(LOGITS), seen, key, Sampling(temperature=0)) == best
    assert pick(jnp.asarray(LOGITS), seen, key, Sampling(temperature=0, suppress=(int(best),))) == second


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
