"""Pages: their means, what a question thinks of them, which are read, and that nothing else is."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from svlm_jax.cache import pages

B, K, N, H, PAGE, PAGES = 2, 2, 4, 8, 4, 10
rng = np.random.default_rng(0)
KEYS = rng.normal(size=(B, K, PAGE * PAGES, H)).astype(np.float32)
QUERY = rng.normal(size=(B, 5, N, H)).astype(np.float32)
ASKED = np.asarray([[False, True, True, True, False], [True] * 5])


def test_page_means_count_only_what_is_held():
    count = np.asarray([PAGE * PAGES, 2 * PAGE + 1])
    means = np.asarray(pages.page_means(KEYS, count, page=PAGE, pages=PAGES))
    np.testing.assert_allclose(means[0], KEYS[0].reshape(K, PAGES, PAGE, H).mean(2), atol=1e-6)
    np.testing.assert_allclose(means[1][:, :2], KEYS[1][:, : 2 * PAGE].reshape(K, 2, PAGE, H).mean(2), atol=1e-6)
    np.testing.assert_allclose(means[1][:, 2], KEYS[1][:, 2 * PAGE], atol=1e-6)  # a page of one
    assert not means[1][:, 3:].any()


def test_scores_are_mean_products_of_the_asked_words_alone():
    means = np.asarray(pages.page_means(KEYS, np.full(B, PAGE * PAGES), page=PAGE, pages=PAGES))
    scores = np.asarray(pages.page_scores(QUERY, ASKED, means))
    for b in range(B):
        words = QUERY[b][ASKED[b]]
        products = [
            [[words[t, n] @ means[b, n // (N // K), p] for p in range(PAGES)] for n in range(N)] for t in range(len(words))
        ]
        np.testing.assert_allclose(scores[b], np.mean(products, axis=(0, 1)), atol=1e-5)
    everything = np.asarray(pages.page_scores(QUERY, np.ones_like(ASKED), means))
    assert np.abs(everything - scores)[0].max() > 1e-3 and np.allclose(everything[1], scores[1])


@pytest.mark.parametrize(
    ("count", "share", "read"), [(750, 0.4, 300), (750, 1.0, 750), (751, 0.4, 301), (1, 0.4, 1), (5, 0.2, 1), (100, 0.07, 7)]
)
def test_forty_per_cent_of_750_pages_are_300(count, share, read):
    """And 7 % of 100 are 7, though 100 times 0.07 is 7.000000000000001."""
    assert pages.pages_read(count, share) == read


@pytest.mark.parametrize("share", [0.2, 0.4, 0.6, 0.8, 1.0])
@pytest.mark.parametrize("held", [0, 1, 5, 17, 40])
def test_the_best_pages_are_chosen_in_order_of_the_stream(held, share):
    score = np.round(rng.normal(size=(B, PAGES)), 1).astype(np.float32)
    chosen = np.asarray(pages.choose(score, np.full(B, held), page=PAGE, share=share))
    count = -(-held // PAGE)
    wanted = pages.pages_read(count, share) if count else 0
    for b in range(B):
        best = sorted(range(count), key=lambda page: (-score[b, page], page))[:wanted]
        assert chosen[b].tolist() == sorted(best) + [PAGES] * (chosen.shape[1] - wanted)
    assert pages.slots_of(chosen, page=PAGE)[0, :PAGE].tolist() == [int(chosen[0, 0]) * PAGE + i for i in range(PAGE)]


def test_permuted_pages_are_chosen_all_the_same():
    order = rng.permutation(PAGES)
    moved = KEYS.reshape(B, K, PAGES, PAGE, H)[:, :, order].reshape(KEYS.shape)
    full = np.full(B, PAGE * PAGES)

    def chosen(keys):
        means = pages.page_means(keys, full, page=PAGE, pages=PAGES)
        return np.asarray(pages.choose(pages.page_scores(QUERY, ASKED, means), full, page=PAGE, share=0.4))

    for before, after in zip(chosen(KEYS), chosen(moved), strict=True):
        assert sorted(order[after].tolist()) == before.tolist()


def test_chosen_pages_are_read_without_a_copy_of_the_cache():
    slots = 5 * PAGE * PAGES
    cache, chosen = jnp.zeros((B, K, slots, H)), jnp.zeros((B, 3), jnp.int32)

    def read(cache, chosen):
        return pages.gather(cache, pages.slots_of(chosen, page=PAGE))

    np.testing.assert_array_equal(read(KEYS, jnp.asarray([[1, 3], [0, 2]]))[0, :, :PAGE], KEYS[0, :, PAGE : 2 * PAGE])
    program = jax.jit(read).lower(cache, chosen).compile().as_text()
    whole = [line for line in program.splitlines() if re.search(rf"= f32\[{B},{K},{slots},{H}\]", line)]
    assert whole and all(" parameter(" in line for line in whole)
