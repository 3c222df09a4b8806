"""The chat template of a checkpoint: Instruct and Thinking variants of Qwen3-VL, and one that is not ours."""

import json

import pytest

from svlm_jax.checkpoint.random import random_config
from svlm_jax.errors import CheckpointError
from svlm_jax.prompt.qa import Dialogue
from svlm_jax.prompt.template import OPENING, answer_opening
from svlm_jax.prompt.tokenizer import Tokenizer
from tests.checkpoints import tiny

TURNS = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
INSTRUCT = TURNS + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
THINKING = TURNS + "{% if add_generation_prompt %}{{- '<|im_start|>assistant\\n<think>\\n' }}{% endif %}"
# One that only shows the thoughts of earlier turns does not make a model think.
SHOWS = TURNS + "{{ '<think>\\n' + thoughts + '\\n</think>\\n\\n' }}{{ '<|im_start|>assistant\\n' }}"


@pytest.mark.parametrize(
    ("template", "opening"),
    [(INSTRUCT, OPENING), (THINKING, OPENING + "<think>\n\n</think>\n\n"), (SHOWS, OPENING), (None, OPENING)],
)
@pytest.mark.parametrize("file", ["chat_template.jinja", "chat_template.json", "tokenizer_config.json"])
def test_an_answer_opens_without_thoughts(tmp_path, file, template, opening):
    if template is not None:
        text = template if file.endswith("jinja") else json.dumps({"chat_template": template})
        (tmp_path / file).write_text(text)
    assert answer_opening(tmp_path) == opening


def test_a_template_of_other_turns_is_refused(tmp_path):
    (tmp_path / "chat_template.jinja").write_text("{{ '[INST] ' + messages[0].content + ' [/INST]' }}")
    with pytest.raises(CheckpointError, match=r"chat_template.jinja writes no <\|im_start\|>: expected a template"):
        answer_opening(tmp_path)


def test_a_question_ends_with_the_opening():
    encode, opening = Tokenizer(tiny("qwen3_vl") / "tokenizer.json").encode, OPENING + "<think>\n\n</think>\n\n"
    turn = Dialogue(random_config("qwen3_vl"), encode, "Speak.", opening=opening).turn("Who scored?", None, None)
    assert turn.token[-len(encode(opening)) :] == encode(opening)
