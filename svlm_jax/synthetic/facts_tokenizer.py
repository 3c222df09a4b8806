"""The tokenizer of models that are trained on facts alone: one token a flag, a sign, and a phrase of the question."""

from pathlib import Path

from svlm_jax.prompt.commentary import SYSTEM
from svlm_jax.synthetic.facts import WORDS
from svlm_jax.synthetic.facts_render import SIDE
from svlm_jax.synthetic.tokenizer import SPECIAL, write_tokenizer

PLAIN = ("system", "user", "assistant", SYSTEM, *WORDS)
VOCAB_SIZE = 256 + len(SPECIAL) + len(PLAIN)


def write_facts_tokenizer(folder: str | Path) -> None:
    """Writes a new folder with tokenizer.json and its settings; CheckpointError when it exists."""
    write_tokenizer(folder, PLAIN, {"max_pixels": SIDE * SIDE})
