"""Standard output and error that are closed, full, or read by nobody."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
SVLM = f"{sys.executable} -m svlm_jax"


def shell(command: str, folder: Path) -> tuple[int, str]:
    """Exit code, and standard error."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(["bash", "-c", command], check=False, capture_output=True, text=True, cwd=folder, env=environment)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (f"{SVLM} --help >/dev/full", 2, "svlm: the output cannot be written: No space left on device.\n"),
        (f"{SVLM} --help >&-", 2, "svlm: the output cannot be written: Bad file descriptor.\n"),
        (f"{SVLM} --help 2>&-", 0, ""),
        (f"{SVLM} convert nowhere there 2>&-", 2, ""),
        (f"{SVLM} convert nowhere there 2>/dev/full", 2, ""),
        (f"{SVLM} convert nowhere there >&- 2>&- <&-", 2, ""),
        (f"{SVLM} --help | true; exit ${{PIPESTATUS[0]}}", 141, ""),
    ],
)
def test_the_exit_code_is_right_and_there_is_one_sentence(command, code, said, tmp_path):
    assert shell(command, tmp_path) == (code, said)
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize(("where", "code"), [(">&-", 2), (">/dev/full", 2), ("| head -n 1; exit ${PIPESTATUS[0]}", 141)])
def test_files_are_whole_when_the_output_is_not(where, code, tmp_path):
    """What was said before the output broke stands in the file, as whole lines."""
    watch = f"{SVLM} watch 'synthetic:match?seed=1&minutes=0.1' --model embedded --no-live --jsonl out.jsonl"
    found, said = shell(f"{watch} {where}", tmp_path)
    assert found == code and "Traceback" not in said and said.count("\n") <= 1
    text = (tmp_path / "out.jsonl").read_text()
    assert text and text.endswith("\n")
