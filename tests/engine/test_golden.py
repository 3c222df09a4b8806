"""Every recording of the authors' implementation, token for token, through the same step that `svlm watch` uses."""

import functools
import pathlib

import pytest

from benchmarks import golden_replay
from svlm_jax.streaming.vlm import StreamingVLM

GOLDEN = pathlib.Path(__file__).parent.parent / "golden"
CASES = [(folder, case) for folder in ("streamingvlm", "qwen2_vl") for case in golden_replay.cases(GOLDEN / folder)]


@functools.cache
def model(folder: str) -> StreamingVLM:
    return StreamingVLM.from_pretrained(GOLDEN / folder / "checkpoint", dtype="float32")


def test_there_are_fifteen_cases():
    assert len(CASES) == 15


@pytest.mark.parametrize(("folder", "case"), CASES)
def test_recording(folder, case):
    row = golden_replay.replay(model(folder), GOLDEN / folder, case)
    assert row.exact, row
    assert row.tokens > 100 and row.left >= 0 and row.programs <= 1
