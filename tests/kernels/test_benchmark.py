"""The table of kernels: rivals compute the same, wrong answers get no time, and what was not measured says so."""

import dataclasses
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


def test_a_row_says_what_was_measured(monkeypatch):
    """2 and 4 µs for 3e5 operations and 1e4 bytes, where the device needs 3 µs for the former and 1 µs for the latter."""
    seconds = iter((2e-6, 4e-6))
    monkeypatch.setattr(kernels, "duration", lambda call, arrays: next(seconds))
    case = dataclasses.replace(cache.case(5, 96), flops=3e5, bytes=1e4)
    ours, xla, cudnn = kernels.measure(case, HERE, present=True)
    assert (ours.implementation, xla.implementation, cudnn.implementation) == ("reference", "xla", "cudnn")
    for row, measured in ((ours, (2e-6, 0.15, 0.005, 1.5)), (xla, (4e-6, 0.075, 0.0025, 0.75))):
        assert row.note == "" and row.error < kernels.TOLERANCE
        assert (row.seconds, row.tflops, row.tbytes, row.share) == pytest.approx(measured)
    assert cudnn.seconds is None and cudnn.note, "cuDNN cannot run on a CPU: a row with the reason"


def test_a_duration_is_the_best_of_its_loops_a_call(monkeypatch):
    """Loops of 8, 2 and 6 s, of two calls each, after one that compiles and is not timed."""
    monkeypatch.setattr(kernels, "LOOP", 2)
    monkeypatch.setattr(kernels, "REPEATS", 3)
    clock = iter((0.0, 8.0, 10.0, 12.0, 20.0, 26.0))
    monkeypatch.setattr(kernels.time, "perf_counter", lambda: next(clock))
    calls = []

    def call(x):
        jax.debug.callback(lambda: calls.append(1))
        return x

    assert kernels.duration(call, (jnp.zeros(1),)) == 1.0
    jax.effects_barrier()
    assert len(calls) == 2 * (1 + 3)


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
