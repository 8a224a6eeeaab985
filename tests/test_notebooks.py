"""The notebooks: their cells are sound and use names that exist; the long tests run them from the first cell to the last."""

from __future__ import annotations

import ast
from pathlib import Path

import nbformat
import pytest

import alexnet

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def code_of(file: Path) -> list[str]:
    return [cell.source for cell in nbformat.read(file, as_version=4).cells if cell.cell_type == "code"]


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_cells_are_sound_and_without_output(file):
    notebook = nbformat.read(file, as_version=4)
    nbformat.validate(notebook)
    assert [cell for cell in notebook.cells if cell.get("outputs")] == []
    tree = ast.parse("\n".join(code_of(file)))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "alexnet":
            assert node.attr in alexnet.__all__
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("alexnet."):
            module = __import__(str(node.module), fromlist=["x"])
            assert all(hasattr(module, name.name) for name in node.names)
    assert "SMALL = False" in code_of(file)[0]


def test_the_ledger_of_the_trial_is_read_and_two_claims_are_settled(capsys):
    """The quick cells of it, in this process."""
    space: dict[str, object] = {}
    for code in code_of(ROOT / "notebooks" / "the-paper-on-trial.ipynb"):
        exec(code.replace("SMALL = False", "SMALL = True"), space)
    printed = capsys.readouterr().out
    assert "C5 does not hold" in printed
    assert "2178 C16 does not hold" in printed
    assert "N6 alexnet claims run N6 --scale" in printed


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_runs_in_a_small_form(file, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient and ipykernel")
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    notebook = nbformat.read(file, as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace("SMALL = False", "SMALL = True")
    nbclient.NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    assert any(cell.get("outputs") for cell in notebook.cells)
