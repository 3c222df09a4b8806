"""LiveVLM's programs on LLaVA-OneVision-7B fit the card of the paper, 24 GB: compiled on a machine without one."""

import pytest

from tests.aot import recall, target


@pytest.mark.slow
@pytest.mark.skipif(bool(target.missing("h200")), reason=str(target.missing("h200")))
@pytest.mark.filterwarnings("ignore:.*")  # the plugin warns in many ways that it finds no GPU
def test_a_clip_a_question_and_an_answer_fit_in_24_gb():
    programs = recall.compile_all()
    assert [program.name for program in programs] == ["clip", "question", "answer"]
    assert max(program.total for program in programs) < recall.LIMIT, programs
