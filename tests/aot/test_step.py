"""The 7B second fits an H200, and a card of 24 GB: compiled for it on a machine without one."""

import pytest

from benchmarks.aot import target


@pytest.mark.slow
@pytest.mark.skipif(bool(target.missing("h200")), reason=str(target.missing("h200")))
def test_seven_billion_parameters_at_720p_fit_in_24_gb():
    found = target.run("benchmarks.aot.step")
    assert found.returncode == 0, found.stdout + found.stderr
