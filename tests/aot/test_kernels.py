"""Kernels compile for devices that this machine lacks; what is too large for one is rejected."""

import functools
import importlib.util

import jax
import jax.numpy as jnp
import pytest

from benchmarks.aot import kernels as aot_kernels
from benchmarks.aot import target
from pallas_kernels import shapes

# Of each kernel, the shapes that make a program of their own; the others are slow tests.
FIRST = {
    "cache_attention": ("B1 T1 C8192", "B1 T50 C8192", "B1 T320 C8192", "B1 T800 C8192 sink512 window4096"),
    "flash_attention": ("T8192 segments1 sink512 window2048 f+b",),
    "window_attention": ("532x980 windows", "560x1008 full", "640x1152 full, heads of 72"),
    "pooled_scores": ("R64 C8192 lse",),
    "decode_attention": ("B1 C8192",),
    "rms_norm": ("D3584",),
}
CASES = [
    pytest.param(case, marks=[] if case.name in FIRST[case.kernel] else pytest.mark.slow, id=f"{case.kernel} {case.name}")
    for case in shapes.cases()
]

pytestmark = pytest.mark.filterwarnings("ignore:.*")  # the compilers warn in many ways that they find no device


@pytest.fixture(params=target.TARGETS)
def on(request):
    if reason := aot_kernels.missing(request.param):
        pytest.skip(reason)
    return request.param


@pytest.mark.parametrize("case", CASES)
def test_compiles_without_spills(on, case):
    own = "mosaic_gpu" if on == "h200" else "mosaic_tpu"
    if importlib.util.find_spec(f"pallas_kernels.{case.kernel}.{own}") is None:
        pytest.skip(f"{case.kernel} has no kernel of its own for {on}: XLA does it there")
    rows = list(aot_kernels.rows(on, case))
    assert rows
    for row in rows:
        assert row.good, row
        assert (row.registers is not None) == (on == "h200")


def test_some_of_every_kernel_is_not_slow():
    for kernel, names in FIRST.items():
        assert set(names) <= {case.name for case in shapes.cases(kernel)}


def needs(reason):
    return pytest.mark.skipif(bool(reason), reason=str(reason))


@needs(aot_kernels.missing("h200"))
def test_tiles_larger_than_shared_memory_are_rejected():
    """Four stages of 128 keys and values are 256 KiB: 227 KiB is the limit. Two of them fit: the kernel itself is sound."""
    assert aot_kernels.compiled("h200", "fits", functools.partial(attend, stages=2), *ATTEND).good
    row = aot_kernels.compiled("h200", "overflow", functools.partial(attend, stages=4), *ATTEND)
    assert row.error is not None and "shared memory" in row.error
    assert not row.good


@needs(aot_kernels.missing("h200"))
def test_spills_are_seen():
    """A kernel that keeps more than 255 registers a thread alive is compiled, and not good."""
    row = aot_kernels.compiled("h200", "spills", hold_too_much, jax.ShapeDtypeStruct((64, 1024), jnp.float32))
    assert row.error is None
    assert row.spilled, row
    assert not row.good


def test_a_compiler_that_says_no_makes_a_row_and_an_exit_status(monkeypatch, capsys):
    def refuse(*_):
        raise ValueError("too large\nand more")

    monkeypatch.setattr(aot_kernels, "missing", lambda on: None)
    monkeypatch.setattr(target, "compile_for", refuse)
    monkeypatch.setattr("sys.argv", ["aot_kernels", "--target", "v5e", "R64 C8192 lse"])
    assert aot_kernels.main() == 1
    out = capsys.readouterr().out
    assert "FAILED" in out and "ValueError: too large\n" in out and "0 of 1" in out


ATTEND = [
    *(jax.ShapeDtypeStruct(s, jnp.bfloat16) for s in ((1, 1, 256, 128), (1, 1, 512, 128), (1, 1, 512, 128))),
    *(jax.ShapeDtypeStruct(s, jnp.int32) for s in ((1, 256), (1, 512))),
]


def attend(query, keys, values, row_order, kv_index, *, stages):
    from pallas_kernels.hopper import blocks, forward

    tiles = forward.Tiles(warpgroups=2, keys=128, stages=stages, splits=1)
    cols = blocks.columns(kv_index, kv_index, tiles.keys)
    visits = blocks.lists(blocks.Mask(), row_order, row_order, cols, tiles.rows)
    rows = forward.Rows(query, row_order, row_order)
    return forward.attend(rows, keys, values, cols, visits, scale=0.1, mask=blocks.Mask(), tiles=tiles)


def hold_too_much(x):
    """One warpgroup holds (64, 1024) float32 values: 512 a thread."""
    from jax import lax
    from jax.experimental.pallas import mosaic_gpu as plgpu

    def body(source, out):
        held = plgpu.load(source, layout=plgpu.Layout.WGMMA, optimized=False)
        total = lax.fori_loop(0, source.shape[0], lambda i, y: y * y + held, held)
        out[...] = total

    return plgpu.kernel(body, out_type=[jax.ShapeDtypeStruct(x.shape, x.dtype)])(x)
