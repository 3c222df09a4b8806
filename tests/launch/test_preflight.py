"""What is said before a run, about a run of seconds."""

import os
from pathlib import Path

import pytest

from launch import preflight
from tests.checkpoints import tiny

CONFIG = str(Path(__file__).parents[2] / "configs" / "tiny.py")
CHANGES = ["mesh.fsdp=2", "mesh.data=2", "mesh.tensor=2", "data.pipeline.batch=4", "evaluation=None"]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What preflight sets for jax, which is there already, is taken back."""
    monkeypatch.setenv("XLA_FLAGS", os.environ["XLA_FLAGS"])
    monkeypatch.setattr(preflight, "PROBE_BYTES", 1 << 16)


@pytest.mark.slow
def test_everything_is_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = [*CHANGES, f"folder={tmp_path}", f"model.tokenizer={tiny()}"]
    assert preflight.main([CONFIG, *changes]) == 0
    said = capsys.readouterr().out.splitlines()
    beginnings = (
        "devices: 8 x cpu of 1 processes",
        "all-gather of",
        f"disk: {tmp_path / 'tiny'} has",
        "training data: 256 samples",
    )
    assert [line.startswith(words) for line, words in zip(said, beginnings, strict=False)] == [True] * 4, said
    assert said[4].startswith("memory of each device") and said[5].startswith("  4 x 640 tokens: state 0.0 + batch")
    assert list((tmp_path / "tiny").iterdir()) == []


def test_memory_needs_nothing_but_the_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert preflight.main([CONFIG, *CHANGES, "model.tokenizer=nowhere", "--devices", "8"]) == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("memory of each device") and len(rest) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["configs/none.py"], "svlm: there is no configuration configs/none.py: expected a Python file"),
        ([CONFIG, "mesh.fsdp=3", "--devices", "8"], "svlm: the mesh (data=1, fsdp=3, tensor=1) needs 3 devices"),
        ([CONFIG, "data.pipeline.batch=6", "--devices", "8"], "svlm: a batch of 6 samples does not divide by the 8 devices"),
    ],
)
def test_what_does_not_fit_is_one_sentence(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert preflight.main(arguments) == 2
    assert sentence in capsys.readouterr().err
