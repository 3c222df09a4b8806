"""What a decoded token of the 7B second launches and moves on an H200, compiled for it on a machine without one.

Programs of one and two layers are compiled, and 28 extrapolated: each further layer adds the same. It was 684 launches, 15.8 GB
and 4.55 ms at first.
"""

import json
import subprocess
import sys

import pytest

from benchmarks import roofline
from benchmarks.aot import target
from pallas_kernels import compat

WHY_NOT = compat.mosaic_gpu_missing() or target.missing("h200")
needs_compiler = pytest.mark.skipif(bool(WHY_NOT), reason=str(WHY_NOT))
SMALLEST_WEIGHT = 3584 * 512  # of what is multiplied in a layer: the values' part of the fused product


def measured(folder, *options):
    """The record of a process of its own: the compiler leaves gigabytes behind."""
    file = folder / "roofline.json"
    command = [sys.executable, "-m", "benchmarks.roofline", "--part", "decode", "--json", str(file), *options]
    subprocess.run(command, check=True, capture_output=True)
    return json.loads(file.read_text())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return measured(tmp_path_factory.mktemp("whole"))


@pytest.mark.slow
@needs_compiler
def test_a_decoded_token_is_near_the_reading_of_its_weights(whole):
    decode, weights = whole["decode"], whole["decode"]["weights_ms"] * 1e-3 * roofline.MACHINES["h200"].bandwidth
    assert decode["launches"] <= 300
    assert decode["bytes"] <= 1.02 * (weights + whole["cache_bytes"])
    assert decode["bound_ms"] <= 3.9
    assert decode["largest_float32"] < 4 * SMALLEST_WEIGHT


@pytest.mark.slow
@needs_compiler
def test_weights_of_8_bits_are_multiplied_as_they_are(whole, tmp_path):
    """Nearly half of the traffic, and nowhere a wider copy of a weight."""
    small = measured(tmp_path, "--quantize", "int8")
    assert small["decode"]["bytes"] <= 0.56 * whole["decode"]["bytes"]
    assert small["decode"]["weight_copies"] == whole["decode"]["weight_copies"] == 0
    assert small["decode"]["largest_float32"] < 4 * SMALLEST_WEIGHT
    assert small["memory_bytes"] < 0.62 * whole["memory_bytes"]


def test_layers_that_are_alike_are_extrapolated():
    """Two layers more add twice what one adds; the largest array is no sum."""
    one, two = (roofline.Part(10 + 7 * n, 100 * n, n, n, 5.0, 0, n, 1, 0.5, n) for n in (1, 2))
    four = roofline.extrapolated(one, two, (1, 2), 4, 2.0)
    assert (four.launches, four.bytes, four.largest_float32, four.weights_ms) == (38, 400, 5.0, 2.0)
    assert four.weights_share == 2.0 / four.bound_ms == 0.5


def test_records_replace_their_older_selves(tmp_path):
    file, row = tmp_path / "rows.json", {"model": "qwen2.5-vl-7b", "target": "h200", "streams": 1, "quantize": None}
    for record in (row | {"x": 1}, row | {"quantize": "int8", "x": 2}, row | {"x": 3}):
        roofline.add(file, record)
    found = json.loads(file.read_text())
    assert sorted(record["x"] for record in found["records"]) == [2, 3]
    assert "qwen2.5-vl-7b, h200, 8, int8" in found["not_recorded"]
    assert not {"qwen2.5-vl-7b, h200, 1, int8", "qwen2.5-vl-7b, h200, 1, bfloat16"} & set(found["not_recorded"])
