import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NEEDED = {"pytorch_to_onnx": "torch"}  # beside what the tests install
TRAIN = {"inside_a_language_model", "vanishing_gradients", "pytorch_to_onnx"}  # by fast code
LONG = TRAIN | {"a_new_cell"}
NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def each():
    """Those that train are long, `make laws`: what they call has tests of its own."""
    for path in NOTEBOOKS:
        yield pytest.param(path, marks=[pytest.mark.long] * (path.stem in LONG), id=path.stem)


@pytest.mark.parametrize("path", list(each()))
@pytest.mark.filterwarnings("default")  # the kernel's own machinery; the notebook's cells are not
def test_notebook_runs(path, monkeypatch):
    if path.stem in NEEDED:
        pytest.importorskip(NEEDED[path.stem], reason=f"{NEEDED[path.stem]} is not installed")
    monkeypatch.setenv("PYTHONPATH", str(path.parents[1]), prepend=os.pathsep)
    monkeypatch.setenv("MPLBACKEND", "agg")
    if path.stem in TRAIN:  # for the others what conftest.py asks for is faster in all
        monkeypatch.delenv("XLA_FLAGS", raising=False)
    notebook = nbformat.read(path, as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells), "commit it without outputs"
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
