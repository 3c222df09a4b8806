"""The one command that makes the embedded models, with runs of two steps."""

import json
from pathlib import Path

import pytest

from configs import facts
from launch import embedded
from svlm_jax.checkpoint.streaming_block import streaming_block
from svlm_jax.streaming.vlm import StreamingVLM
from svlm_jax.synthetic.tokenizer import STREAMING

SHORT = ("loop.steps=2", "loop.eval_batches=1", "loop.accumulate=1")


@pytest.mark.slow
def test_the_model_and_its_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert embedded.main([*SHORT, "--output", "model", "--minutes", "0.1", "--note", "a test"]) == 0
    vlm = StreamingVLM.from_pretrained("model")
    assert streaming_block(vlm.checkpoint.generation_config) == json.loads(json.dumps(STREAMING))
    assert json.loads(Path("model/config.json").read_text())["dtype"] == "bfloat16"
    card = Path("model/README.md").read_text()
    assert "2 steps of 8 chunks" in card and "; a test." in card and "1001, 1002, 1003" in card


@pytest.mark.slow
def test_the_model_of_facts_and_its_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert embedded.main([*SHORT, "--model", "embedded-facts", "--minutes", "0.5"]) == 0
    assert StreamingVLM.from_pretrained("runs/embedded-facts").config == facts.architecture()
    card = Path("runs/embedded-facts/README.md").read_text()
    assert "2 steps of 16 clips" in card and "streams of 0.5 minutes" in card and "| right answers | " in card


def test_a_folder_that_exists_is_said_before_the_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert embedded.main(["--output", str(tmp_path)]) == 2
    assert f"{tmp_path} exists already" in capsys.readouterr().err
