"""A recording of the authors' implementation, replayed through the Pallas kernels, vision tower included."""

import pathlib

import pytest

from benchmarks import golden_replay
from pallas_kernels import dispatch
from svlm_jax.streaming.vlm import StreamingVLM

FOLDER = pathlib.Path(__file__).parent.parent / "golden" / "streamingvlm"


@pytest.mark.slow
def test_recording_through_interpreted_kernels(monkeypatch):
    """All recordings: `python -m benchmarks.golden_replay tests/golden/streamingvlm --implementation interpret`."""
    named, used = dispatch._named, set()

    def noted(kernel, name, implementation, *rest):
        used.add((kernel, implementation))
        return named(kernel, name, implementation, *rest)

    monkeypatch.setattr(dispatch, "_named", noted)
    vlm = StreamingVLM.from_pretrained(FOLDER / "checkpoint", dtype="float32")
    row = golden_replay.replay(vlm, FOLDER, "m_one_clip", "interpret", chunks=6)
    assert row.exact, row
    assert row.tokens > 60
    assert used == {("cache_attention", "interpret"), ("window_attention", "interpret")}
