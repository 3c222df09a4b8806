"""A second of 7B and 8B models fits an H200, and a card of 24 GB: compiled for it on a machine without one."""

import pytest

from benchmarks.aot import target


@pytest.mark.slow
@pytest.mark.skipif(bool(target.missing("h200")), reason=str(target.missing("h200")))
@pytest.mark.parametrize("model", ["qwen2.5-vl-7b", "qwen3-vl-8b"])
def test_a_second_of_720p_fits_in_24_gb(model):
    found = target.run("benchmarks.aot.step", "--model", model)
    assert found.returncode == 0, found.stdout + found.stderr
