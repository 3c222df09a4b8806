"""The notebooks run from beginning to end, and their generated files are those of their sources."""

import os
import tomllib
from pathlib import Path

import pytest

jupytext = pytest.importorskip("jupytext", reason="needs the notebooks extra")
nbclient = pytest.importorskip("nbclient", reason="needs the notebooks extra")

FOLDER = Path(__file__).parents[2] / "notebooks"
SOURCES = sorted(FOLDER.glob("*.py"))


def cells(notebook):
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_generated_files_are_those_of_their_sources(source):
    assert cells(jupytext.read(source)) == cells(jupytext.read(source.with_suffix(".ipynb"))), "run `make notebooks`"


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_badges_open_the_notebook_from_where_it_is_published(source):
    project = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    repository = project["urls"]["Repository"].removeprefix("https://github.com/")
    address = f"https://colab.research.google.com/github/{repository}/blob/main/notebooks/{source.stem}.ipynb"
    for text in (source.read_text(encoding="utf-8"), (FOLDER.parent / "README.md").read_text(encoding="utf-8")):
        assert f"(https://colab.research.google.com/assets/colab-badge.svg)]({address})" in text
        assert text.count("colab.research.google.com/github/") == text.count(f"/github/{repository}/blob/main/notebooks/")


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_the_first_cell_installs_from_where_the_project_is(source, tmp_path, monkeypatch):
    """From the checkout that the notebook lies in, else from the address in pyproject.toml; not by a name that PyPI lacks."""
    project = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (cell,) = (cell.source for cell in jupytext.read(source).cells if "install" in cell.metadata.get("tags", ()))
    *code, install = cell.splitlines()
    assert install == '%pip install -q "{package}"'
    (tmp_path / "notebooks").mkdir()
    for folder, package in (
        (FOLDER, f"{FOLDER.parent}[notebooks]"),
        (tmp_path / "notebooks", f"svlm-jax[notebooks] @ git+{project['urls']['Repository']}"),
    ):
        monkeypatch.chdir(folder)
        names = {}
        exec("\n".join(code), names)
        assert names["package"] == package


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_notebooks_run(source, tmp_path):
    notebook = jupytext.read(source)
    # The package that is tested is the one that is installed.
    notebook.cells = [cell for cell in notebook.cells if "install" not in cell.metadata.get("tags", ())]
    client = nbclient.NotebookClient(notebook, timeout=280, kernel_name="python3", resources={"metadata": {"path": tmp_path}})
    # One device, as people have it: not those that the tests pretend to have.
    client.execute(env={name: value for name, value in os.environ.items() if name != "XLA_FLAGS"})
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any(output.output_type == "stream" and " s  " in output.text for output in shown), "no caption was printed"
