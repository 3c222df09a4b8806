import subprocess
import sys

import pytest

from svlm_jax.cli import main as cli


@pytest.mark.parametrize("command", [[], ["watch"], ["ask"], ["train"], ["eval"], ["bench"], ["convert"], ["doctor"], ["demo"]])
def test_help_teaches_by_example(command, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main([*command, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert command == ["demo"] or "examples:" in text
    assert len(text.splitlines()) > 10


def test_help_imports_nothing_heavy():
    program = (
        "import sys, contextlib, io, svlm_jax\n"
        "from svlm_jax.cli import main as cli\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        "    cli.main(['watch', '--help'])\n"
        "heavy = {'jax', 'flax', 'av', 'numpy', 'rich', 'huggingface_hub', 'torch', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_module_and_command_are_the_same():
    out = subprocess.run(
        [sys.executable, "-m", "svlm_jax", "--version"], capture_output=True, text=True, timeout=60, check=True
    )
    assert out.stdout.startswith("svlm-jax 0.")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], ["COMMAND"]),
        (["listen"], ["listen"]),
        (["watch", "clip.mp4"], ["--model"]),
        (["watch", "clip.mp4", "--model", "m", "--fps", "fast"], ["--fps", "'fast'", "a number above 0"]),
        (["watch", "clip.mp4", "--model", "m", "--window", "vision=-3"], ["--window", "'-3'", "at least 0"]),
        (["watch", "clip.mp4", "--model", "m", "--window", "past=3"], ["--window", "'past=3'", "vision=SECONDS"]),
        (["doctor", "--size", "4k"], ["--size", "'4k'", "1280x720"]),
    ],
)
def test_a_wrong_command_line_is_one_sentence(argv, words, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(argv)
    assert caught.value.code == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith("svlm: ")
    assert complaint.count("\n") == 1
    assert all(word in complaint for word in words), complaint
