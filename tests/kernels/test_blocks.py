"""Lists of blocks: nothing visible is left out, nothing masked passes for whole, and no column is met twice."""

import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels import compat
from pallas_kernels.hopper import blocks

ROWS, SIZE = 8, 16
MASKS = {
    "causal": blocks.Mask(),
    "window": blocks.Mask(window=20),
    "sink": blocks.Mask(sink=5, window=20),
    "segments": blocks.Mask(segments=True),
    "everything": blocks.Mask(sink=3, window=9, segments=True),
    "windows of a picture": blocks.Mask(causal=False, segments=True),
}


def ring(seed=0, slots=72, live=50, shuffled=True):
    """A cache's orders and segments, a fifth empty, and rows for its last tokens and some before, one of them padding."""
    rng = np.random.default_rng(seed)
    column = np.full((1, slots), -1)
    column[0, (rng.permutation(slots) if shuffled else np.arange(slots))[:live]] = np.arange(live)
    row = np.arange(live - 32, live)[None]
    row[0, 5] = -1
    return tuple(jnp.asarray(x, jnp.int32) for x in (row, column))


def arrays(mask, shuffled):
    row, column = ring(shuffled=shuffled)
    segments = [jnp.where(x < 0, -1, x // 18) for x in (row, column)]
    if not mask.causal:
        row, column = (jnp.minimum(x, 0) for x in (row, column))
    return row, segments[0], column, segments[1]


@pytest.mark.parametrize("few", [512, 0], ids=["placed", "sorted"])
@pytest.mark.parametrize("shuffled", [True, False], ids=["shuffled", "in order"])
@pytest.mark.parametrize("name", MASKS)
def test_lists_cover_what_is_visible(name, shuffled, few, monkeypatch):
    monkeypatch.setattr(blocks, "FEW", few)
    mask = MASKS[name]
    row, row_segment, column, column_segment = arrays(mask, shuffled)
    cols = blocks.columns(column, column_segment, SIZE)
    seen = mask.visible(
        row[0, :, None], cols.order[0].reshape(1, -1), row_segment[0, :, None], cols.segment[0].reshape(1, -1)
    )  # fmt: skip
    pairs = np.asarray(seen).reshape(row.shape[1] // ROWS, ROWS, -1, SIZE).transpose(0, 2, 1, 3)
    some, every = pairs.any((2, 3)), pairs.all((2, 3))
    assert some.any() and not every.all()
    for lists, of_some, of_every in (
        (blocks.lists(mask, row, row_segment, cols, ROWS), some, every),
        (blocks.transposed(mask, row, row_segment, cols, ROWS), some.T, every.T),
    ):
        for i, (ids, full, count) in enumerate(zip(*(np.asarray(x)[0] for x in lists), strict=True)):
            visited = ids[:count].tolist()
            assert len(set(visited)) == count
            assert set(np.flatnonzero(of_some[i])) <= set(visited)
            assert all(of_every[i][j] for j in visited[:full])


def test_most_blocks_are_skipped_in_order():
    """Of a causal square of 4 x 4 blocks, 6 are whole, 4 are partly visible and 6 are never fetched."""
    line = jnp.arange(64, dtype=jnp.int32)[None]
    lists = blocks.lists(blocks.Mask(), line, line, blocks.columns(line, line, 16), 16)
    assert lists.length[0].tolist() == [1, 2, 3, 4]
    assert lists.full[0].tolist() == [0, 1, 2, 3]
    window = blocks.lists(blocks.Mask(window=16, sink=4), line, line, blocks.columns(line, line, 16), 16)
    assert window.length[0].tolist() == [1, 2, 3, 3]


def test_the_last_block_begins_early_and_repeats_nothing():
    order = jnp.arange(40, dtype=jnp.int32)[None]
    cols = blocks.columns(order, order, 16)
    assert cols.start.tolist() == [0, 16, 24]
    assert sorted(cols.order[cols.order < blocks.EMPTY].tolist()) == list(range(40))


def test_a_jax_without_the_kernels_says_so(monkeypatch):
    monkeypatch.setattr(compat.jax, "__version_info__", (0, 10, 2))
    monkeypatch.setattr(compat.jax, "__version__", "0.10.2")
    assert compat.mosaic_gpu_missing() == "Mosaic GPU kernels need jax 0.11.1 or newer (Python 3.12), this is jax 0.10.2"
