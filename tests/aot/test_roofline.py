"""What a decoded token of the 7B second launches and moves on an H200, compiled for it on a machine without one."""

import json
import subprocess
import sys

import pytest

from benchmarks.aot import target
from pallas_kernels import compat

WHY_NOT = compat.mosaic_gpu_missing() or target.missing("h200")


@pytest.mark.slow
@pytest.mark.skipif(bool(WHY_NOT), reason=str(WHY_NOT))
def test_a_decoded_token_is_near_the_reading_of_its_weights(tmp_path):
    """Two and four layers are compiled, 28 extrapolated. 684 launches, 15.8 GB and 4.55 ms it was before."""
    file = tmp_path / "roofline.json"
    command = [sys.executable, "-m", "benchmarks.roofline", "--part", "decode", "--json", str(file)]
    subprocess.run(command, check=True, capture_output=True)
    record = json.loads(file.read_text())
    decode, weights = record["decode"], record["decode"]["weights_ms"] * 1e-3 * 4.3e12
    assert decode["launches"] <= 315
    assert decode["bytes"] <= 1.02 * (weights + record["cache_bytes"])
    assert decode["bound_ms"] <= 3.9
    assert decode["largest_float32"] < 4 * 3584 * 512  # the smallest weight, in float32
