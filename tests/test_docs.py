"""The code in the README and the docstrings runs, in single precision as for a reader."""

import doctest
import importlib
import re
from pathlib import Path

import jax
import pytest

from tests.test_floors import MODULES

ROOT = Path(__file__).parents[1]
NEEDED = {  # of the examples
    "jaxlstm.interop.equinox": "equinox",
    "jaxlstm.interop.keras": "keras",
    "jaxlstm.interop.onnx": "onnx",
    "jaxlstm.interop.onnx_export": "onnx",
    "jaxlstm.interop.safetensors": "safetensors",
}


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name, monkeypatch):
    if name in NEEDED:
        monkeypatch.setenv("KERAS_BACKEND", "jax")
        pytest.importorskip(NEEDED[name], reason=f"{NEEDED[name]} is not installed")
    module = importlib.import_module(name.removesuffix(".__init__"))
    with jax.enable_x64(False):
        assert doctest.testmod(module).failed == 0


def test_readme_code():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) >= 4
    names = {}
    with jax.enable_x64(False):
        for block in blocks:
            exec(compile(block, "README.md", "exec"), names)
    assert (names["short"][7:, 2] == 0).all()


def test_readme_links_lead_somewhere():
    for target in re.findall(r"\]\((?!http|#)([^)#]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / target).exists(), target
