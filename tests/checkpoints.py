"""Small checkpoints for tests, written once a run."""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

import jax.numpy as jnp

from configs import facts as facts_config
from configs.match import architecture
from svlm_jax.checkpoint.export import export
from svlm_jax.checkpoint.random import _noise, write_random_checkpoint
from svlm_jax.synthetic.facts_tokenizer import write_facts_tokenizer
from svlm_jax.synthetic.tokenizer import write_tokenizer


@functools.cache
def _root() -> Path:
    root = Path(tempfile.mkdtemp(prefix="svlm-checkpoints-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return root


def tiny(family: str = "qwen2_5_vl", *, seed: int = 0) -> Path:
    """A folder with a random model of 0.4 million parameters; share it, and copy it before changing anything."""
    folder = _root() / f"{family}-{seed}"
    if not folder.exists():
        write_random_checkpoint(folder, family=family, seed=seed)
    return folder


def match() -> Path:
    """The embedded model's shape, tokenizer and window with random weights: in its place where skill does not matter."""
    folder = _root() / "match"
    if not folder.exists():
        write_tokenizer(_root() / "match-tokenizer")
        config = architecture()
        export(folder, config, _noise(config, 0, jnp.float32), tokenizer_from=_root() / "match-tokenizer")
    return folder


def facts() -> Path:
    """The shape and tokenizer of the embedded model of facts, with random weights."""
    folder = _root() / "facts"
    if not folder.exists():
        write_facts_tokenizer(_root() / "facts-tokenizer")
        config = facts_config.architecture()
        export(folder, config, _noise(config, 0, jnp.float32), tokenizer_from=_root() / "facts-tokenizer")
    return folder
