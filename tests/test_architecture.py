"""docs/architecture.md names files and the names in them; all of them exist, and every room of the package stands there."""

import ast
import re
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
