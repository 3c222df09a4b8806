"""The tokenizer of models trained on matches, and the room that their configuration leaves for chunks."""

from pathlib import Path

import pytest

from svlm_jax.models.flat_params import flatten
from svlm_jax.models.functional import abstract_params
from svlm_jax.prompt.tokenizer import Tokenizer
from svlm_jax.synthetic.tokenizer import PLAIN, SPECIAL, VOCAB_SIZE, token_id, write_tokenizer
from svlm_jax.train.config import load_config
from svlm_jax.train.run import Source, sets

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("match") / "tokenizer"
    write_tokenizer(folder)
    return folder


def test_words_and_marks_are_one_token_and_all_else_comes_back(folder: Path) -> None:
    tokenizer = Tokenizer(folder / "tokenizer.json")
    assert len(tokenizer) == VOCAB_SIZE
    assert all(tokenizer.encode(text) == [token_id(text)] for text in (*SPECIAL, *PLAIN))
    for text in (" red goal score 2-1 ...", "Time=7205.0-7206.0s", "Grüße, \n", "<|im_start|>user\n"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode(" red goal score 2-1 ...")) == 5
    assert len(tokenizer.encode("Time=7205.0-7206.0s")) == 7


@pytest.mark.slow
def test_the_embedded_model_is_small_and_its_chunks_fit(folder: Path) -> None:
    config = load_config(ROOT / "configs" / "match.py", [f"model.tokenizer={folder}"])
    source = Source.of(config.model)
    assert sum(leaf.size for leaf in flatten(abstract_params(source.config)).values()) < 4_000_000
    for (samples, _), bucket in zip(sets(config.data, source), config.data.pipeline.buckets, strict=True):
        lengths = [samples.length(number, bucket.size)[0] for number in range(100)]
        assert 0.7 * bucket.tokens < max(lengths) <= bucket.tokens
