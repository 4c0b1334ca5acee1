"""The code in the README and the docstrings runs, in single precision as for a reader."""

import doctest
import importlib
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from tests import matrices
from tests.test_floors import MODULES

ROOT = Path(__file__).parents[1]
NEEDED = {  # of the examples
    "jaxlstm.diagnostics.plots": "matplotlib",
    "jaxlstm.interop.equinox": "equinox",
    "jaxlstm.interop.keras": "keras",
    "jaxlstm.interop.onnx": "onnx",
    "jaxlstm.interop.safetensors": "safetensors",
}
# Those with much to compile, and little in their examples that others or the tests have not.
RARER = ("ablations", "convlstm", "gru_d", "hyper_lstm", "janet", "laws", "mgu", "mlstm")
RARER += ("mogrifier_lstm", "phased_lstm", "pyramid", "slstm", "time_aware_lstm", "zoneout")
LONG = {name for name in MODULES if name.split(".")[-1] in RARER}


@pytest.mark.xdist_group("examples")  # one process, which compiles what they have in common once
@pytest.mark.parametrize("name", matrices.few(MODULES, LONG))
def test_docstring_examples(name, monkeypatch):
    for module in (module for module in NEEDED if name.startswith(module)):
        monkeypatch.setenv("KERAS_BACKEND", "jax")
        pytest.importorskip(NEEDED[module], reason=f"{NEEDED[module]} is not installed")
    module = importlib.import_module(name.removesuffix(".__init__"))
    with jax.enable_x64(False):
        assert doctest.testmod(module).failed == 0


def run_code(document):
    """Its blocks of Python one after another; the names that they leave."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)
    assert len(blocks) >= 2
    names = {}
    with jax.enable_x64(False):
        for block in blocks:
            exec(compile(block, document, "exec"), names)
    return names


def test_readme_code():
    assert (run_code("README.md")["short"][7:, 2] == 0).all()


def test_runs_code():
    names = run_code("docs/runs.md")
    assert names["step"] == 100
    assert names["loss"] < 1e-3
    assert list(names["tree"]) == ["params"]


def test_interop_code():
    pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch==2.13.0")
    names = run_code("docs/interop.md")
    assert names["logits"].shape == (2, 20, 3)
    again = jax.export.deserialize(bytearray(names["data"]))
    given = names["params"], names["xs"][:7, :2]
    with jax.enable_x64(False):
        np.testing.assert_allclose(
            again.call(*given)[1], names["layer"].apply(*given)[1], atol=1e-5
        )


@pytest.mark.parametrize(
    "document", ["README.md", "docs/interop.md", "docs/semantics.md", "docs/runs.md"]
)
def test_links_lead_somewhere(document):
    path = ROOT / document
    for target in re.findall(r"\]\((?!http|#)([^)#]+)\)", path.read_text()):
        assert (path.parent / target).exists(), target
