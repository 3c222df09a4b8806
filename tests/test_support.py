"""The support matrix of `docs/support.md`: behind each of its rows are tests that exist, and it says what the records say."""

import ast
import re
from pathlib import Path

import pytest

from svlm_jax.models import registry

ROOT = Path(__file__).parents[1]
COLUMNS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "llava_onevision")
PAGE = (ROOT / "docs" / "support.md").read_text(encoding="utf-8").partition("## Families")[2]
ROWS = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in PAGE.splitlines() if line.startswith("| ")][1:]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_every_row_has_tests(row):
    assert len(row) == 2 + len(COLUMNS) and set(row[1:-1]) <= {"✓", "–"}
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row[-1])
    assert named
    for file, test in named:
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, f"{file}::{test}"


@pytest.mark.parametrize(
    ("row", "capability"), [("`watch`", "watch"), ("`ask`, every memory", "ask"), ("training, as a PyTorch loop", "train")]
)
def test_ticks_are_what_the_families_can(row, capability):
    assert set(COLUMNS) == set(registry.FAMILIES)
    (ticks,) = (cells[1:-1] for cells in ROWS if cells[0] == row)
    able = {name for name, tick in zip(COLUMNS, ticks, strict=True) if tick == "✓"}
    can = {name for name, family in registry.FAMILIES.items() if capability in family.capabilities}
    assert able == can - ({"qwen2_vl"} if capability == "train" else set())  # its loop is that of Qwen2.5-VL
