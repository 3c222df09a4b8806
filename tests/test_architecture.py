"""docs/architecture.md names files and the names in them; all of them exist, and every room of the package stands there."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
NAMES = sorted(set(re.findall(r"`((?:svlm_jax|pallas_kernels|configs|launch|benchmarks|tests|docs)[\w./]*)(?::(\w+))?`", PAGE)))


@pytest.mark.parametrize(("path", "name"), NAMES, ids=lambda part: part or "-")
def test_what_the_page_names_is_there(path, name):
    assert (ROOT / path).exists()
    if name:
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        assert name in defined


def test_every_room_stands_on_the_page():
    package = ROOT / "svlm_jax"
    rooms = {path.name for path in package.iterdir() if (path / "__init__.py").exists()}
    assert rooms <= set(re.findall(r"svlm_jax/(\w+)/`", PAGE))
    loose = {path.name for path in package.glob("*.py")}
    assert loose == {"__init__.py", "__main__.py", "errors.py", "sharding.py"}


def _letters():
    """Every dimension letter in an annotation of jaxtyping, with one place where it stands."""
    found = {}
    for package in ("svlm_jax", "pallas_kernels"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Tuple) and len(node.slice.elts) == 2:
                    shape = node.slice.elts[1]
                    if isinstance(shape, ast.Constant) and isinstance(shape.value, str):
                        words = (word.lstrip("*") for word in shape.value.split())
                        found |= {word: f"{path.relative_to(ROOT)}:{node.lineno}" for word in words if word.isupper()}
    return found


def test_every_dimension_letter_has_its_meaning():
    """L and G stand in prose and code alone."""
    glossary = re.findall(r"^\| ([A-Z]) \|", PAGE, re.M)
    letters = _letters()
    assert len(set(glossary)) == len(glossary)
    assert {letter: place for letter, place in letters.items() if letter not in glossary} == {}
    assert set(glossary) - set(letters) <= {"L", "G"}
    builtins = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]["builtins"]
    assert set(builtins) <= set(glossary)
