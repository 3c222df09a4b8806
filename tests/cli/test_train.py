"""`svlm train`: a run, its export, and bad inputs; runs of several processes are in tests/launch."""

from pathlib import Path

import pytest

from launch import train as launched
from svlm_jax import cli
from svlm_jax.checkpoint import hf
from tests import checkpoints

TINY = str(Path(__file__).parents[2] / "configs" / "tiny.py")


@pytest.fixture
def arguments(tmp_path):
    changes = [f"folder={tmp_path}", f"model.tokenizer={checkpoints.tiny()}", "loop.steps=1", "evaluation=None"]
    return [TINY, *changes]


def test_a_run_is_exported_and_both_commands_are_one(arguments, tmp_path, capsys):
    assert cli.main(["train", *arguments]) == 0
    assert "tiny finished" in " ".join(capsys.readouterr().err.split())
    assert launched.main([*arguments, "--export", str(tmp_path / "model")]) == 0
    assert "step 1 of tiny is in" in " ".join(capsys.readouterr().err.split())
    assert hf.load(tmp_path / "model").config.text.num_layers > 0


@pytest.mark.parametrize("main", [lambda argv: cli.main(["train", *argv]), launched.main])
def test_bad_inputs_are_one_sentence(main, capsys):
    assert main(["nowhere.py"]) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith("svlm: ") and "nowhere.py" in complaint and complaint.count("\n") == 1
    with pytest.raises(SystemExit) as caught:
        main([TINY, "--exports", "x"])
    assert caught.value.code == 2 and "--exports" in capsys.readouterr().err
