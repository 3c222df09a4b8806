"""What is taken from a checkpoint's chat template: whether its turns are ours, and how the turn of an answer opens."""

import re
from pathlib import Path

from svlm_jax.errors import CheckpointError
from svlm_jax.host.json_files import read_object

OPENING = "<|im_start|>assistant\n"
# Of models that think first (Qwen3-VL Thinking): what their template writes when thinking is switched off.
NO_THOUGHTS = "<think>\n\n</think>\n\n"
# As a template writes the opening of a turn that the model is to fill: behind quotes, with a newline or its escape.
_THINKS = re.compile(r"assistant(\\n|\n)<think>(\\n|\n)['\"]")


def answer_opening(folder: Path) -> str:
    """The opening of the turn in which a model answers at once, without thoughts.

    Raises CheckpointError when the folder has a template of turns without <|im_start|>: the model was trained on others.
    """
    template, where = _template(folder)
    if template is None:
        return OPENING
    if "<|im_start|>" not in template:
        raise CheckpointError(f"{where} writes no <|im_start|>: expected a template of turns like {OPENING!r}.")
    return OPENING + NO_THOUGHTS if _THINKS.search(template) else OPENING


def _template(folder: Path) -> tuple[str | None, Path]:
    """The text of the template and the file that holds it: of its own in newer checkpoints, else inside JSON."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8", errors="replace"), file
    for name in ("chat_template.json", "tokenizer_config.json"):
        file = folder / name
        if file.is_file() and isinstance(found := read_object(file, CheckpointError).get("chat_template"), str):
            return found, file
    return None, folder
