"""Files that were handed in with bug reports, beside the checkout (`../shared/cases`); without them these tests are skipped."""

from pathlib import Path

import pytest

FOLDER = next((found for parent in Path(__file__).parents if (found := parent / "shared" / "cases").is_dir()), None)


def handed(kind: str) -> list[Path]:
    """The folders of a kind; none where they are not there."""
    return sorted(path for path in (FOLDER / kind).iterdir() if path.is_dir()) if FOLDER and (FOLDER / kind).is_dir() else []


def cases(kind: str) -> Path:
    """The folder of one kind; skips the test where it is not there."""
    if FOLDER is None or not (FOLDER / kind).is_dir():
        pytest.skip("the handed cases are not here")
    return FOLDER / kind


needed = pytest.mark.skipif(FOLDER is None, reason="the handed cases are not here")
