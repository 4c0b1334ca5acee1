import importlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlstm.interop.arrays import Entries, join, named_leaves, needed, split, to_jax


def test_a_library_that_is_missing_is_named_with_what_installs_it():
    message = r"no_such_library can't be imported .*: pip install 'jaxlstm\[keras\]'"
    with pytest.raises(ImportError, match=message):
        needed("no_such_library", "keras")


@pytest.mark.parametrize(
    ("module", "call", "library"),
    [
        ("keras", "from_keras(None)", "keras"),
        ("keras", "to_keras(gru, params)", "keras"),
        ("equinox", "from_equinox(None)", "equinox"),
        ("equinox", "to_equinox(gru, params)", "equinox"),
        ("onnx", "from_onnx(None)", "onnx"),
        ("onnx", "to_onnx(gru, params)", "onnx"),
        ("safetensors", "load('a')", "safetensors"),
        ("safetensors", "save('a', gru, params, 0)", "safetensors"),
    ],
)
def test_each_module_can_be_imported_without_its_library_and_asks_for_it(
    module, call, library, monkeypatch
):
    made = importlib.import_module(f"jaxlstm.interop.{module}")
    for name in [name for name in sys.modules if name.split(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)  # as Python marks what can't be imported
    import jaxlstm as jl

    names = vars(made) | {"gru": jl.gru(3), "params": jl.init_gru(jax.random.key(0), 2, 3)}
    with pytest.raises(ImportError, match=rf"pip install 'jaxlstm\[{library}\]'"):
        eval(call, names)


def test_no_module_loads_its_library_by_itself():
    names = ["torch", "keras", "haiku", "equinox", "onnx", "safetensors"]
    modules = [*names, "cudnn", "arrays", "calls", "specs"]
    imports = "; ".join(f"import jaxlstm.interop.{name}" for name in modules)
    code = f"import sys; {imports}; print([n for n in {names} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_entries_are_taken_once_and_nothing_may_be_left():
    entries = Entries("weights", {"w": np.ones((2, 3)), "b": jnp.ones(3)})
    assert entries.take("w", (None, 3)).shape == (2, 3)
    with pytest.raises(ValueError, match="weights: expected no other entries, got 'b'"):
        entries.finish()
    with pytest.raises(ValueError, match=r"weights 'b': expected shape \(any, 3\), got \(3,\)"):
        entries.take("b", (None, 3))
    entries.take("b", (3,))
    entries.finish()


@pytest.mark.parametrize("value", [np.ones(2, int), np.ones(2, complex), ["a"], None])
def test_what_is_not_floating_point_raises(value):
    with pytest.raises(ValueError, match=r"b: expected floating-point numbers, got"):
        to_jax(value, "b")


def test_traced_arrays_pass():
    taken = jax.jit(lambda a: Entries("weights", {"w": a}).take("w", (3,)) + 1)
    np.testing.assert_array_equal(taken(jnp.zeros(3)), jnp.ones(3))


def test_gates_are_split_and_joined():
    w = jnp.arange(24.0).reshape(2, 12)
    np.testing.assert_array_equal(split(w, 4)[:, 1], w[:, 3:6])
    np.testing.assert_array_equal(join(split(w, 4)), w)


def test_leaves_by_their_paths():
    tree = ({"a": 1, "b": (2, None)}, 3)
    assert named_leaves(tree) == {"0.a": 1, "0.b.0": 2, "1": 3}
    assert named_leaves(4) == {"params": 4}
    with pytest.raises(ValueError, match=r"params: expected entries of different names, got a\.b"):
        named_leaves({"a": {"b": 1}, "a.b": 2})
