"""`svlm train`: a run, its export, and bad inputs; runs of several processes are in tests/launch."""

import io
import sys
from pathlib import Path

import pytest

from launch import train as launched
from svlm_jax.checkpoint import hf, peft
from svlm_jax.cli import main as cli
from svlm_jax.train import run as training
from tests import checkpoints

TINY = str(Path(__file__).parents[2] / "configs" / "tiny.py")
MAINS = [lambda argv: cli.main(["train", *argv]), launched.main]


@pytest.mark.slow
def test_a_run_is_exported_and_both_commands_are_one(tmp_path, capsys):
    arguments = [TINY, f"folder={tmp_path}", f"model.tokenizer={checkpoints.tiny()}", "loop.steps=1", "evaluation=None"]
    arguments += ["data.pipeline.batch=8", "optimizer.warmup=0", "partition.lora.rank=2"]  # a sample a device
    assert cli.main(["train", *arguments]) == 0
    assert "tiny finished" in " ".join(capsys.readouterr().err.split())
    assert launched.main([*arguments, "--export", str(tmp_path / "model")]) == 0
    assert "step 1 of tiny is in" in " ".join(capsys.readouterr().err.split())
    whole = hf.load(tmp_path / "model")
    assert cli.main(["train", *arguments, "--export-adapter", str(tmp_path / "adapter")]) == 0
    adapters, scale = peft.load(tmp_path / "adapter", whole.config)
    up = adapters["decoder.layers.attn.qkv.weight.lora_up"]
    assert scale == 8 and up.shape[:2] == (whole.config.text.num_layers, 2) and abs(up).max() > 0
    assert cli.main(["train", *arguments[:-1], "partition.lora.rank=0", "--export-adapter", str(tmp_path / "none")]) == 2
    assert "trains whole weights (lora.rank is 0)" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("main", MAINS)
@pytest.mark.parametrize(("outcome", "code"), [("finished", 0), ("preempted", launched.PREEMPTED)])
def test_the_outcome_is_the_exit_code(main, outcome, code, monkeypatch, capsys):
    configs = []
    monkeypatch.setattr(training, "run", lambda config, say: configs.append(config) or outcome)
    assert main([TINY, "loop.steps=7"]) == code
    assert configs[0].loop.steps == 7 and f"tiny {outcome}" in capsys.readouterr().err


@pytest.mark.parametrize("main", MAINS)
def test_a_run_goes_on_when_nobody_can_read_its_lines(main, monkeypatch):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stderr", Full())
    monkeypatch.setattr(training, "run", lambda config, say: say("step 1") or "finished")
    assert main([TINY]) == 0


@pytest.mark.parametrize("main", MAINS)
def test_bad_inputs_are_one_sentence(main, capsys):
    assert main(["nowhere.py"]) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith("svlm: ") and "nowhere.py" in complaint and complaint.count("\n") == 1
    with pytest.raises(SystemExit) as caught:
        main([TINY, "--exports", "x"])
    assert caught.value.code == 2 and "--exports" in capsys.readouterr().err
