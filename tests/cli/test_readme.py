"""What the README shows runs as it stands, with a small model and a short clip in the place of its names."""

import re
import shlex
from pathlib import Path

import pytest

from svlm_jax.cli import main as cli
from tests import clips

ROOT = Path(__file__).parents[2]
MODEL = Path(__file__).parents[1] / "golden" / "streamingvlm" / "checkpoint"


@pytest.mark.slow
def test_python_examples_run(tmp_path, monkeypatch, capsys):
    text = (ROOT / "README.md").read_text() + (ROOT / "docs" / "library.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 3
    monkeypatch.chdir(tmp_path)
    clips.render(tmp_path / "match.mp4", frames=24 * 3)
    names = {}
    for block in blocks:
        exec(block.replace("mit-han-lab/StreamingVLM", str(MODEL)), names)
    assert names["session"].chunks == 3
    assert names["pool"].chunk_index.tolist() == [3]
    assert "0 s: " in capsys.readouterr().out


@pytest.mark.parametrize("document", ["README.md", "docs/decisions.md", "docs/memory.md", "docs/serving.md"])
def test_commands_are_understood(document):
    text = (ROOT / document).read_text()
    commands = [shlex.split(line, comments=True)[1:] for line in text.splitlines() if line.startswith("    svlm ")]
    for command in commands:
        cli.parser().parse_args(command)
    flags = set(re.findall(r"`(--[a-z-]+)", text))
    known = {flag for sub in subparsers() for flag in sub._option_string_actions}
    assert flags <= known, flags - known
    assert document != "README.md" or len(commands) >= 4


@pytest.mark.parametrize("document", ["README.md", "docs/decisions.md", "docs/memory.md", "docs/support.md"])
def test_files_that_are_named_exist(document):
    text = (ROOT / document).read_text()
    named = re.findall(r"(?:`|\()((?:tests|benchmarks|docs|svlm_jax)/[\w./*-]+)", text)
    assert document != "docs/support.md" or len(named) > 10
    assert [path for path in named if not list(ROOT.glob(path))] == []
    for path, test in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text):
        assert f"def {test}(" in (ROOT / path).read_text()


def subparsers():
    return [sub for action in cli.parser()._actions if hasattr(action.choices, "values") for sub in action.choices.values()]
