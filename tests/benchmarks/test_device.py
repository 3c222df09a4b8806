"""What `make device` does, on a CPU with a tiny model: every part is measured, what fails is said, and a run goes on."""

import dataclasses
import json

import jax
import pytest

from benchmarks import device
from pallas_kernels.shapes import Case
from svlm_jax.eval.results import Rows, manifest


def case(name, wrong=0.0):
    def call(implementation, x):
        if wrong == "raises":
            raise ValueError("no such device")
        return x + (wrong if implementation == "auto" else 0)

    return Case("rms_norm", name, lambda key: (jax.random.normal(key, (8,)),), call, 1.0, 1.0)


ASKED = device.Asked("random:tiny", None, (56, 84), (2,), (case("good"), case("bad", 1.0), case("broken", "raises")), seconds=2)


@pytest.fixture
def short(monkeypatch):
    """One recording stands for all."""
    monkeypatch.setattr(device.golden_replay, "cases", lambda folder: ["k_one_reply"][: folder.name == "streamingvlm"])
    monkeypatch.setattr(device, "TOKENS", 3)


@pytest.mark.slow
def test_every_part_is_measured_and_a_second_run_has_nothing_to_do(tmp_path, short):
    file, said = tmp_path / "device.json", []
    rows = Rows(file, {}, manifest(["x"]))
    assert device.run(ASKED, rows, 9.0, said.append) == 0
    found = json.loads(file.read_text())["rows"]
    assert next(iter(found)) == "kernel rms_norm good" and list(found)[-1] == "table rms_norm broken"
    right = {name: row.get("right") for name, row in found.items() if name.startswith(("kernel", "golden"))}
    assert list(right.values()) == [True, False, False, True]
    assert "ValueError: no such device" in found["kernel rms_norm broken"]["failed"]
    assert set(found["second"]["parts_ms"]) == {"vision", "prefill", "decode"}
    assert found["streams 2"]["tokens_per_second"] > 0 and "peak_bytes" in found["streams 2"]
    device.draw(rows.rows, tmp_path / "device.png", "tiny")
    assert (tmp_path / "device.png").stat().st_size > 1000
    before = len(said)
    assert device.run(ASKED, Rows(file, {}, manifest(["x"])), 9.0, said.append) == 0 and len(said) == before


def test_when_the_time_is_over_the_rest_is_left(tmp_path, short):
    rows = Rows(tmp_path / "device.json", {}, manifest(["x"]))
    assert device.run(ASKED, rows, -1.0, lambda _: None) == len(list(device.parts(ASKED))) == 9
    assert rows.rows == {}


def test_the_bound_is_that_of_the_same_model_and_device(tmp_path, monkeypatch):
    part = {"bound_ms": 2.0}
    record = {"model": "m", "target": "h200", "streams": 1, "quantize": None, "cache_dtype": "bfloat16"}
    record |= dict.fromkeys(("vision", "prefill", "decode"), part)
    (tmp_path / "roofline.json").write_text(json.dumps({"records": [{**record, "streams": 8}, record]}))
    monkeypatch.setattr(device, "RESULTS", tmp_path)
    asked = dataclasses.replace(ASKED, model="random:m")
    assert device.predicted(asked) is None, "a CPU has no record"
    monkeypatch.setattr(device.kernels, "DEVICES", {"h200": dataclasses.replace(device.kernels.DEVICES["h200"], kind="cpu")})
    assert device.predicted(asked) == {"vision": 2.0, "prefill": 2.0, "decode": 2.0 * (device.TOKENS - 1)}
    assert device.predicted(dataclasses.replace(asked, quantize="int8")) is None
