"""LiveVLM's programs on LLaVA-OneVision-7B fit the card of the paper, 24 GB: compiled on a machine without one."""

import pytest

from benchmarks.aot import kernels as aot_kernels
from benchmarks.aot import target


@pytest.mark.slow
@pytest.mark.skipif(bool(aot_kernels.missing("h200")), reason=str(aot_kernels.missing("h200")))
def test_a_clip_a_question_and_an_answer_fit_in_24_gb():
    found = target.run("benchmarks.aot.recall")
    assert found.returncode == 0, found.stdout + found.stderr
    assert all(f"  {program}" in found.stdout for program in ("clip", "question", "answer")), found.stdout
