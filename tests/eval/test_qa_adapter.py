"""LiveVLM's memory behind the six verbs, on a tiny random model."""

import dataclasses

import pytest

from svlm_jax.cache.policies import memory_policy
from svlm_jax.errors import ConfigError, StreamError
from svlm_jax.eval.benchmarks import BENCHMARKS
from svlm_jax.eval.commentary_adapter import CommentaryAdapter
from svlm_jax.eval.interface import View
from svlm_jax.eval.qa_adapter import QAAdapter
from svlm_jax.eval.runner import Run, run_row
from svlm_jax.models.resize_rule import PUBLISHED
from svlm_jax.streaming.vlm import StreamingVLM
from tests import checkpoints
from tests.eval import sets
from tests.streaming.streams import chunk

MEMORY = memory_policy("vsb+par", budget=64, clip_frames=4, queries=4)


@pytest.fixture(scope="module")
def recaller():
    vlm = StreamingVLM.from_pretrained(checkpoints.tiny(), dtype="float32")
    return QAAdapter(CommentaryAdapter(vlm), MEMORY, max_new_tokens=4)


@pytest.mark.slow
def test_rvs_end_to_end(recaller, tmp_path):
    """Two questions to one stream; answers do not depend on what is asked in between, or on where a run was stopped."""
    benchmark = BENCHMARKS["rvs-ego"]
    protocol = dataclasses.replace(benchmark.protocol, max_new_tokens=4)
    run = Run(
        benchmark, sets.rvs(tmp_path / "data"), tmp_path / "out", protocol, resize=dataclasses.replace(PUBLISHED, size=(28, 56))
    )
    result = run_row(run, recaller, "stream")
    assert result["counts"]["answered"] == 2 and 0 < result["cost"]["tokens_most"] <= MEMORY.budget
    assert "vsb+par" in (tmp_path / "out" / "stream" / "manifest.json").read_text()
    records = tmp_path / "out" / "stream" / "items.jsonl"
    whole = records.read_text().splitlines()
    records.write_text(whole[0] + "\n")
    again = run_row(run, recaller, "stream")
    assert {**again, "cost": None} == {**result, "cost": None}


def test_a_memory_of_questions_is_no_commentator(recaller):
    with pytest.raises(ConfigError, match=r"vsb\+par answers questions: expected a benchmark without commentary"):
        recaller.reset(View(2.0, 1.0, query="Commentate."))
    recaller.reset(View(2.0, 1.0))
    recaller.feed(chunk(0, size=(28, 56)))
    with pytest.raises(StreamError, match="says nothing by itself"):
        recaller.say()
    with pytest.raises(ConfigError, match="max_new_tokens=5: expected 4"):
        recaller.ask("Who?", max_new_tokens=5)
