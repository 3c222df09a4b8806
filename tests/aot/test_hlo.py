"""Launches, bytes and products of a small program whose counts are known by hand."""

import pytest

from benchmarks.aot.hlo import Program, size

PROGRAM = """HloModule small

%fused_row (p0: bf16[1000,8], p1: s32[]) -> bf16[1,8] {
  %p0 = bf16[1000,8]{1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  ROOT %row = bf16[1,8]{1,0} dynamic-slice(%p0, %p1, %zero), dynamic_slice_sizes={1,8}
}

%fused_update (p0: bf16[1000,8], p1: bf16[1,8], p2: s32[]) -> bf16[1000,8] {
  %p0 = bf16[1000,8]{1,0} parameter(0)
  %p1 = bf16[1,8]{1,0} parameter(1)
  %p2 = s32[] parameter(2)
  %zero = s32[] constant(0)
  ROOT %put = bf16[1000,8]{1,0} dynamic-update-slice(%p0, %p1, %p2, %zero)
}

%fused_product (p0: bf16[1,8], p1: bf16[8,16]) -> f32[1,16] {
  %p0 = bf16[1,8]{1,0} parameter(0)
  %p1 = bf16[8,16]{1,0} parameter(1)
  ROOT %dot = f32[1,16]{1,0} dot(%p0, %p1), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%body (state: (s32[], bf16[1000,8], bf16[8,16])) -> (s32[], bf16[1000,8], bf16[8,16]) {
  %state = (s32[], bf16[1000,8]{1,0}, bf16[8,16]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %table = bf16[1000,8]{1,0} get-tuple-element(%state), index=1
  %weight = bf16[8,16]{1,0} get-tuple-element(%state), index=2
  %read = bf16[1,8]{1,0} fusion(%table, %i), kind=kLoop, calls=%fused_row
  %write = bf16[1000,8]{1,0} fusion(%table, %read, %i), kind=kLoop, calls=%fused_update
  %multiply = f32[1,16]{1,0} fusion(%read, %weight), kind=kCustom, calls=%fused_product
  %kernel = (bf16[1,8]{1,0}, bf16[1000,8]{1,0}) custom-call(%multiply, %write), custom_call_target="own", output_to_operand_aliasing={{1}: (1, {})}
  %kept = bf16[1000,8]{1,0} get-tuple-element(%kernel), index=1
  ROOT %next = (s32[], bf16[1000,8]{1,0}, bf16[8,16]{1,0}) tuple(%i, %kept, %weight)
}

%condition (state: (s32[], bf16[1000,8], bf16[8,16])) -> pred[] {
  %state = (s32[], bf16[1000,8]{1,0}, bf16[8,16]{1,0}) parameter(0)
  ROOT %go = pred[] constant(true)
}

ENTRY %main (table: bf16[1000,8], weight: bf16[8,16]) -> (s32[], bf16[1000,8], bf16[8,16]) {
  %table = bf16[1000,8]{1,0} parameter(0)
  %weight = bf16[8,16]{1,0} parameter(1)
  %start = s32[] constant(0)
  %copied = bf16[8,16]{1,0} copy(%weight)
  %begin = (s32[], bf16[1000,8]{1,0}, bf16[8,16]{1,0}) tuple(%start, %table, %copied)
  ROOT %loop = (s32[], bf16[1000,8]{1,0}, bf16[8,16]{1,0}) while(%begin), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"3"}}
}
"""  # noqa: E501


@pytest.fixture
def program():
    return Program(PROGRAM)


def test_sizes_of_types():
    assert size("bf16[1000,8]{1,0}") == 16_000
    assert size("(s4[3]{0}, pred[], f8e4m3fn[2,2]{1,0})") == 1.5 + 1 + 4


def test_the_body_of_the_loop_is_found(program):
    ((loop, body),) = program.loops()
    assert (loop.name, body) == ("loop", "body")


@pytest.mark.parametrize(
    ("name", "moved", "flops"),
    [
        ("read", 16 + 4 + 16, 0),  # a row and its number, not the table; the row
        ("write", 16 + 4 + 16, 0),  # in place
        ("multiply", 16 + 256 + 64, 2 * 8 * 16),
        ("kernel", 64 + 16, 0),  # the table goes in and comes out
    ],
)
def test_a_launch(program, name, moved, flops):
    (found,) = (kernel for kernel in program.kernels("body") if kernel.name == name)
    assert (found.bytes, found.flops) == (moved, flops)


def test_loops_count_as_often_as_they_run(program):
    kernels = {kernel.name: kernel.times for kernel in program.kernels()}
    assert kernels == {"copied": 1, "read": 3, "write": 3, "multiply": 3, "kernel": 3}
