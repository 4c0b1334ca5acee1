"""The house stands: imports only go down, names are explicit, files stay small."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import jaxlstm

ROOT = Path(jaxlstm.__file__).parent
MODULES = {
    ".".join(("jaxlstm", *path.relative_to(ROOT).with_suffix("").parts)): path
    for path in sorted(ROOT.rglob("*.py"))
}
CORE = ["jaxlstm.base", "jaxlstm.checks", "jaxlstm.blocks"]
MATHS = [*CORE, "jaxlstm.gates", "jaxlstm.initializers"]
SEQUENCE = [*MATHS, "jaxlstm.kernels", "jaxlstm.sweep", "jaxlstm.gated", "jaxlstm.sequence"]
# What each module may import of this package (and what is in it), and from elsewhere.
FLOORS = {
    "jaxlstm.base": ([], ["jax"]),
    "jaxlstm.checks": ([], ["jax", "numpy"]),
    "jaxlstm.blocks": (["jaxlstm.base"], ["jax"]),
    "jaxlstm.gates": (CORE, ["jax", "numpy"]),
    "jaxlstm.initializers": (CORE, ["jax"]),
    "jaxlstm.kernels": ([*CORE, "jaxlstm.kernels"], ["jax"]),
    "jaxlstm.sweep": ([*CORE, "jaxlstm.kernels"], ["jax"]),
    "jaxlstm.gated": ([*CORE, "jaxlstm.kernels", "jaxlstm.sweep"], ["jax"]),
    "jaxlstm.sequence": (CORE, ["jax"]),
    "jaxlstm.streaming": ([*CORE, "jaxlstm.sequence"], ["jax"]),
    "jaxlstm.hoisted": ([*CORE, "jaxlstm.sequence"], ["jax"]),
    "jaxlstm.linear_recurrence": (CORE, ["jax"]),
    "jaxlstm.cells": (
        [*SEQUENCE, "jaxlstm.hoisted", "jaxlstm.linear_recurrence"],
        ["jax", "numpy"],
    ),
    "jaxlstm.combine.noise": ([*CORE, "jaxlstm.gated"], ["jax"]),
    "jaxlstm.combine.recurrent_dropout": (
        [*CORE, "jaxlstm.gated", "jaxlstm.combine.noise"],
        ["jax"],
    ),
    "jaxlstm.combine.zoneout": (
        [*CORE, "jaxlstm.combine.noise", "jaxlstm.linear_recurrence"],
        ["jax"],
    ),
    "jaxlstm.combine.hidden_parallel": ([*CORE, "jaxlstm.gated"], ["jax"]),
    "jaxlstm.combine.pyramid": ([*CORE, "jaxlstm.sequence", "jaxlstm.combine.stack"], ["jax"]),
    "jaxlstm.combine": ([*CORE, "jaxlstm.sequence"], ["jax"]),
    "jaxlstm.interop.arrays": (CORE, ["jax", "numpy"]),
    "jaxlstm.interop": (["jaxlstm"], ["jax", "numpy", "flax"]),  # others by interop.arrays.needed
    "jaxlstm.attention": (SEQUENCE, ["jax", "numpy"]),
    "jaxlstm.diagnostics": (
        [*SEQUENCE, "jaxlstm.combine", "jaxlstm.attention", "jaxlstm.diagnostics"],
        ["jax", "numpy"],
    ),
    "jaxlstm.diagnostics.plots": (
        [*CORE, "jaxlstm.interop.arrays", "jaxlstm.diagnostics.plots"],
        ["jax", "numpy"],  # matplotlib by interop.arrays.needed
    ),
    "jaxlstm.losses": (CORE, ["jax"]),
    "jaxlstm.data": (["jaxlstm.data"], ["numpy"]),
    "jaxlstm.train.manifest": (["jaxlstm.train.files"], ["jax", "numpy"]),
    "jaxlstm.train.lock": (["jaxlstm.train.manifest"], []),
    "jaxlstm.train.files": ([], []),
    "jaxlstm.train.arrays": (
        ["jaxlstm.train.manifest", "jaxlstm.train.files"],
        ["jax", "numpy", "orbax"],
    ),
    "jaxlstm.train.distributed": (["jaxlstm.train.manifest"], ["jax", "numpy"]),
    "jaxlstm.train.restoring": (
        ["jaxlstm.train.manifest", "jaxlstm.train.arrays"],
        ["jax", "numpy"],
    ),
    "jaxlstm.train.tidying": (["jaxlstm.train.files", "jaxlstm.train.restoring"], []),
    "jaxlstm.train.checkpoints": (
        [
            f"jaxlstm.train.{name}"
            for name in (
                "manifest",
                "files",
                "lock",
                "arrays",
                "distributed",
                "restoring",
                "tidying",
            )
        ],
        ["jax", "numpy"],
    ),
    "jaxlstm.train": (
        [*CORE, "jaxlstm.data", "jaxlstm.train.files"],
        ["jax", "numpy", "optax", "orbax"],
    ),
    "jaxlstm.testing": ([*SEQUENCE, "jaxlstm.testing"], ["jax", "numpy"]),
    "jaxlstm.__init__": (["jaxlstm"], []),
}


def within(name, floors):
    return any(name == floor or name.startswith(floor + ".") for floor in floors)


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            if node.module in ("jaxlstm", "jaxlstm.kernels", "jaxlstm.train", "jaxlstm.data"):
                for alias in node.names:
                    whole = f"{node.module}.{alias.name}"
                    yield (
                        whole if whole in MODULES or f"{whole}.__init__" in MODULES else node.module
                    )
            else:
                yield node.module


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_down(name):
    floor = max((f for f in FLOORS if within(name, [f])), key=len, default=None)
    assert floor is not None, f"{name} has no floor"
    below, outside = FLOORS[floor]
    for imported in imports(MODULES[name]):
        if imported.split(".")[0] == "jaxlstm":
            assert within(imported, below), f"{name} imports {imported}"
        elif imported.split(".")[0] not in sys.stdlib_module_names:
            assert within(imported, outside), f"{name} imports {imported}"


def test_no_family_of_cells_imports_another():
    for path in (ROOT / "cells").glob("*.py"):
        assert not [i for i in imports(path) if i.startswith("jaxlstm.cells")]


@pytest.mark.parametrize("name", MODULES)
def test_files_stay_small(name):
    assert len(MODULES[name].read_text(encoding="utf-8").splitlines()) <= 300


@pytest.mark.parametrize("name", jaxlstm.__all__)
def test_public_names_are_explained(name):
    value = getattr(jaxlstm, name)
    doc = inspect.getdoc(value) or ""
    if inspect.isfunction(value):
        for part in ("Args:", "Returns:", "Example"):
            assert part in doc, f"{name} has no {part}"
        for parameter in inspect.signature(value).parameters:
            assert f"{parameter}:" in doc, f"{name} does not explain {parameter}"


def test_the_package_exports_what_it_lists_and_nothing_else():
    public = {
        n for n, v in vars(jaxlstm).items() if not n.startswith("_") and not inspect.ismodule(v)
    }
    assert public == set(jaxlstm.__all__)
    assert list(jaxlstm.__all__) == sorted(jaxlstm.__all__)


def test_importing_the_package_loads_jax_and_numpy_only():
    code = (
        "import sys, jaxlstm; "
        "print([m for m in ('flax', 'optax', 'orbax', 'chex', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
