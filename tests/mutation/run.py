"""One run of pytest in a process of its own. Not in `__main__`, which processes that are forked do not import."""

import os
import sys


def run(tests: tuple[str, ...], output: str) -> None:
    """pytest in this process, from the working directory, until the first failure; leaves with its exit status."""
    import pytest

    with open(output, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.exit(pytest.main(["-q", "-x", "-p", "no:cacheprovider", "-m", "not slow", *tests]))
