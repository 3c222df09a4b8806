"""Where the shared inputs of public fault reports are, if they are here at all."""

from pathlib import Path

import pytest

CASES = Path(__file__).parents[2].parent / "shared" / "cases"


def cases(kind: str) -> Path:
    """The folder of one kind of cases ("video", "transcripts", ...); skips the test where there is none."""
    folder = next((base / kind for base in (CASES, CASES.parents[2] / "shared" / "cases") if (base / kind).is_dir()), None)
    if folder is None:
        pytest.skip("needs the shared cases")
    return folder
