"""The frame filter equals a plain loop over frames."""

import functools

import jax
import numpy as np
import pytest

from svlm_jax.cache.frame_filter import novel


def plain(frames, valid, threshold):
    """A frame is kept unless it is like the last one kept."""
    last, kept = None, []
    for frame, real in zip(frames, valid, strict=True):
        unit = frame / np.linalg.norm(frame)
        kept.append(bool(real and (last is None or unit @ last <= threshold)))
        last = unit if kept[-1] else last
    return kept


@pytest.mark.parametrize("threshold", [0.5, 0.9, 0.999])
def test_equals_the_loop(threshold):
    """Two streams of slow change, whose neighbours are alike and whose ends are not; the last one kept is handed on."""
    rng = np.random.default_rng(0)
    frames = (rng.normal(size=(2, 1, 6)) + np.cumsum(rng.normal(size=(2, 24, 6)) * 0.1, axis=1)).astype(np.float32)
    valid = rng.random((2, 24)) < 0.9
    program = jax.jit(functools.partial(novel, threshold=threshold))
    first, newest = program(frames[:, :12], valid[:, :12], np.zeros((2, 6), np.float32))
    second, _ = program(frames[:, 12:], valid[:, 12:], newest)
    kept = np.concatenate([first, second], axis=1)
    assert kept.tolist() == [plain(*stream, threshold) for stream in zip(frames, valid, strict=True)]
    assert 0 < kept.sum() < valid.sum()
