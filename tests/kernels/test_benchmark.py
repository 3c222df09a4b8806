"""The table of kernels: rivals compute the same, wrong answers get no time, and what was not measured says so."""

import functools
import json

import jax
import jax.numpy as jnp
import pytest

from benchmarks import kernels, rivals
from pallas_kernels.cache_attention import shapes as cache
from pallas_kernels.flash_attention import shapes as flash
from pallas_kernels.window_attention import shapes as window

HERE = kernels.Device("cpu", "reference", 1e11, 1e10)
SMALL = [
    cache.case(5, 96),
    cache.case(5, 96, sink=8, window=32),
    window.case("even", (16,) * 4),
    window.case("ragged", (16, 12, 9)),
    flash.case(128, 4, backward=False),
    flash.case(128, 1, backward=True, sink=8, window=32),
]


@pytest.mark.parametrize("case", SMALL, ids=lambda case: f"{case.kernel} {case.name}")
def test_rivals_compute_the_same(case):
    """With the signature that cuDNN and tokamax share, here on a CPU."""
    arrays = case.sample(jax.random.key(0))
    call = rivals.through(functools.partial(jax.nn.dot_product_attention, implementation="xla"), case)
    assert kernels.difference(jax.jit(call)(*arrays), jax.jit(functools.partial(case.call, "xla"))(*arrays)) < kernels.TOLERANCE


def test_cases_that_a_library_cannot_express_are_left_out():
    assert rivals.through(jax.nn.dot_product_attention, cache.case(1, 96, rope=True)) is None
    assert rivals.of(cache.case(1, 96), "mosaic_tpu") == []


def test_measured_rows_are_consistent(monkeypatch):
    monkeypatch.setattr(kernels, "LOOP", 2)
    case = cache.case(5, 96)
    ours, xla, cudnn = kernels.measure(case, HERE, present=True)
    assert (ours.implementation, xla.implementation, cudnn.implementation) == ("reference", "xla", "cudnn")
    for row in (ours, xla):
        assert row.note == "" and row.seconds > 0 and row.error < kernels.TOLERANCE
        assert row.tflops == pytest.approx(case.flops / row.seconds / 1e12)
        assert row.share == pytest.approx(kernels.roofline(case, HERE) / row.seconds)
    assert cudnn.seconds is None and cudnn.note, "cuDNN cannot run on a CPU: a row with the reason"


def test_a_wrong_answer_gets_no_time():
    case = cache.case(5, 96)
    arrays = case.sample(jax.random.key(0))
    expected = case.call("xla", *arrays)
    row = kernels._row(case, HERE, "ours", lambda *a: 1.1 * case.call("xla", *a), arrays, expected)
    assert row.seconds is None and row.note == "WRONG" and row.error == pytest.approx(0.1, rel=0.1)
    row = kernels._row(case, HERE, "ours", lambda *a: jnp.nan * case.call("xla", *a), arrays, expected)
    assert row.seconds is None and row.note == "WRONG"


def test_without_the_device_nothing_is_claimed(tmp_path, monkeypatch, capsys):
    out = tmp_path / "kernels.json"
    monkeypatch.setattr("sys.argv", ["kernels", "--kernel", "window_attention", "--out", str(out)])
    assert kernels.main() == 0
    report = json.loads(out.read_text())
    assert report["measured"] is False and report["machine"]["jax"] == jax.__version__
    assert report["rows"] and all(row["seconds"] is None and row["note"] == "not measured" for row in report["rows"])
    assert {row["implementation"] for row in report["rows"]} >= {"mosaic_gpu", "xla", "cudnn"}
    assert "not measured" in capsys.readouterr().out
