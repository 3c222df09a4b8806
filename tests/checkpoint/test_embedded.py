"""The models that are part of the package: small, complete, streamed as trained, and good at matches they have not seen."""

import jax
import pytest

from configs import facts
from configs.match import architecture, get_config
from svlm_jax.checkpoint import hf
from svlm_jax.checkpoint.streaming_block import streaming_block
from svlm_jax.cli import main as cli
from svlm_jax.streaming.vlm import StreamingVLM
from svlm_jax.synthetic.evaluate import evaluate_match
from svlm_jax.synthetic.evaluate_facts import evaluate_facts


@pytest.mark.parametrize(
    ("name", "folder", "most", "wanted"),
    [("embedded", hf.EMBEDDED_FOLDER, 4e6, architecture()), ("embedded-facts", hf.FACTS_FOLDER, 1.5e6, facts.architecture())],
)
def test_it_is_small_and_complete(name, folder, most, wanted):
    files = {path.name: path.stat().st_size for path in folder.iterdir()}
    names = {"config.json", "model.safetensors", "tokenizer.json", "generation_config.json", "preprocessor_config.json"}
    assert names | {"README.md"} <= set(files) and sum(files.values()) <= 2 * most
    vlm = StreamingVLM.from_pretrained(name)
    assert sum(leaf.size for leaf in jax.tree.leaves(vlm.params)) <= most
    assert vlm.config == wanted


def test_it_is_streamed_as_it_was_trained():
    """What its files say, beside the configuration that trains it."""
    data = get_config().data
    block = streaming_block(hf.generation_config("embedded"))
    assert (block["window"]["sink"], block["window"]["tail"]) == (data.chunks.sink, data.chunks.tail)
    assert block["query"] is None is data.chunks.query
    pictures = {bucket.size for bucket in data.pipeline.buckets}
    assert {block["max_pixels"]} == {height * width for height, width in pictures}
    assert block["sampling"]["temperature"] == 0 and block["sampling"]["repetition_penalty"] == 1


@pytest.mark.slow
def test_it_tells_a_match_that_it_has_not_seen():
    figures = evaluate_match(StreamingVLM.from_pretrained("embedded"), 77, 2)
    assert figures["event_f1"] >= 0.9 and figures["silence_precision"] >= 0.95


@pytest.mark.slow
def test_it_recalls_what_it_saw_and_guesses_without():
    figures = evaluate_facts(StreamingVLM.from_pretrained("embedded-facts"), 77, 1)
    assert figures["right"] >= 0.9 and figures["blank"] <= 0.4


def test_watch_knows_it_by_name(tmp_path, capsys):
    assert cli.main(["watch", "synthetic:match?seed=5&minutes=0.1", "--model", "embedded", "--no-live"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 6
