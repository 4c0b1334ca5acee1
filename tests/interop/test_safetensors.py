import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl
from jaxlstm.interop import safetensors as interop
from tests import papers
from tests.test_contract import CELLS, STEP, STEPS

library = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")
KEY = jax.random.key(0)
GRU = jl.gru(4)
OURS = [*STEPS, "lstm every option", "hyper_lstm norm", "stack peephole", "learned start"]
X = jnp.zeros((2, 3), jnp.float32)


def params_of(layer, x=X):
    """Not one of them what `init` draws."""
    return papers.drawn(layer, x, KEY)


@pytest.mark.parametrize("name", OURS)
def test_a_cell_comes_back_with_its_params_bit_for_bit(name, tmp_path):
    cell, x = CELLS[name](), STEPS.get(name, STEP)
    params = params_of(cell, x)
    interop.save(tmp_path / "a", cell, params, x)
    saved = interop.load(tmp_path / "a")
    assert saved.layer is cell
    assert jax.tree.structure(saved.params) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, saved.params, params)


def test_a_layer_with_others_and_notes(tmp_path):
    both = jl.pyramid(jl.bidirectional(jl.lstm(4, peephole=True), jl.gru(3)))
    params, table = params_of(both), jnp.arange(6).reshape(2, 3)
    notes = {"data": "ours", "é": "ü"}
    interop.save(tmp_path / "a", both, params, X, others={"embed.table": table}, notes=notes)
    saved = interop.load(tmp_path / "a")
    assert saved.layer is both
    assert saved.notes == notes
    assert saved.versions == {"jaxlstm": jl.__version__, "jax": jax.__version__}
    np.testing.assert_array_equal(saved.others["embed.table"], table)
    jax.tree.map(np.testing.assert_array_equal, saved.params, params)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float64])
def test_dtypes_are_kept(dtype, tmp_path):
    cell, x = jl.lstm(4, projection=2), X.astype(dtype)
    params = params_of(cell, x)
    interop.save(tmp_path / "a", cell, params, x)
    saved = interop.load(tmp_path / "a")
    assert {a.dtype for a in jax.tree.leaves(saved.params)} == {jnp.dtype(dtype)}
    jax.tree.map(np.testing.assert_array_equal, saved.params, params)


def test_any_reader_finds_the_arrays_by_their_paths(tmp_path):
    cell = jl.stack(jl.gru(4), jl.learned_start(jl.elman(2)))
    params = params_of(cell)
    interop.save(tmp_path / "a", cell, params, X)
    arrays = library.load_file(tmp_path / "a")
    names = "0.w_x 0.w_h 0.b 0.b_n 1.cell.w_x 1.cell.w_h 1.cell.b 1.start.h"
    assert sorted(arrays) == sorted(f"cell.{name}" for name in names.split())
    np.testing.assert_array_equal(arrays["cell.1.start.h"], params[1].start.h)


def test_others_of_other_kinds(tmp_path):
    others = {"c": jnp.ones(2, jnp.complex64), "n": np.arange(3), "b": jnp.array(True)}
    interop.save(tmp_path / "a", GRU, params_of(GRU), X, others=others)
    jax.tree.map(np.testing.assert_array_equal, interop.load(tmp_path / "a").others, others)
    with (
        jax.enable_x64(False),
        pytest.raises(ValueError, match=r"n: expected jax_enable_x64 to be set, or 32 bits"),
    ):
        interop.save(tmp_path / "a", GRU, params_of(GRU), X, others={"n": np.arange(3)})


def test_a_folder_that_is_not_there_raises(tmp_path):
    with pytest.raises(FileNotFoundError, match="path: expected a file in a folder"):
        interop.save(tmp_path / "b" / "a", GRU, params_of(GRU), X)


def test_cells_and_inputs_of_one_s_own(tmp_path):
    @jl.cell
    def leaky(hidden: int, rate: float = 0.5):
        return jl.gru(hidden)

    cell = jl.residual(leaky(3, rate=0.25))
    interop.save(tmp_path / "a", cell, params_of(cell), X, own=[leaky])
    assert interop.load(tmp_path / "a", own=[leaky]).layer is cell
    with pytest.raises(ValueError, match=r"metadata of .*leaky\(3, rate=0.25\) is no call of"):
        interop.load(tmp_path / "a")


@pytest.fixture
def file(tmp_path):
    interop.save(tmp_path / "a", GRU, params_of(GRU), X)
    return tmp_path / "a"


def rewrite(path, metadata=None, arrays=None):
    """The file with other metadata and arrays; None leaves one out."""
    present = lambda entries: {name: a for name, a in entries.items() if a is not None}
    length = int.from_bytes(path.read_bytes()[:8], "little")
    header = json.loads(path.read_bytes()[8 : 8 + length])
    arrays = present(library.load_file(path) | (arrays or {}))
    library.save_file(arrays, path, present(header["__metadata__"] | (metadata or {})))


@pytest.mark.parametrize(
    ("metadata", "arrays", "message"),
    [
        ({}, {"cell.b": None}, r"expected an entry for each array of the cell, got none cell\.b"),
        ({}, {"cell.c": np.ones(3)}, r"expected no other entries of the cell, got cell\.c"),
        (
            {},
            {"cell.b": np.ones((4, 4), np.float32)},
            r"cell\.b: expected shape \(3, 4\) of float32, got shape \(4, 4\) of float32",
        ),
        (
            {},
            {"cell.b": np.ones((3, 4), np.int32)},
            r"cell\.b: expected shape \(3, 4\) of float32, got shape \(3, 4\) of int32",
        ),
        ({"cell": "gru(5)"}, {}, r"cell\.w_x: expected shape \(3, 3, 5\)"),
        ({"cell": "lstm(4)"}, {}, r"expected no other entries of the cell, got cell\.b_n"),
        ({"cell": "exit(4)"}, {}, r"metadata of .*: name: expected the call of a cell"),
        ({"cell": None}, {}, r"metadata of .*: expected an entry 'cell', got jax, jaxlstm, "),
        ({"jaxlstm_format": "2"}, {}, r"metadata of .*: expected format '1', .* got '2'"),
        ({"x": "[]"}, {}, r"x: expected the shapes and dtypes of one step, got '\[\]'"),
        ({"x": "nothing"}, {}, r"x: expected the shapes and dtypes of one step"),
        ({"x": '{"shape": [-3], "dtype": "float32"}'}, {}, r"shape: expected sizes, got -3"),
        ({"x": '{"shape": [3], "dtype": "f99"}'}, {}, r"x: expected the shapes and dtypes"),
        ({"x": '{"shape": [], "dtype": "float32"}'}, {}, r"x: expected one step for gru\(4\)"),
        ({"x": '{"type": "list", "fields": []}'}, {}, r"type: expected one of GRUDInput, "),
        ({"notes": "[]"}, {}, r"notes: expected texts by name, got \[\]"),
        ({"notes": "[" * 99_999}, {}, r"metadata of .*: maximum recursion depth exceeded"),
        (
            {"notes": " " * (1 << 25)},
            {},
            r"at most 16,777,216 characters of 'notes', got 33,554,432",
        ),
        ({"cell": "stack(" + "gru(3), " * 999 + "gru(3))"}, {}, r"4,096 characters of 'cell', got"),
        (
            {"x": '{"shape": [' + "1," * 99_999 + "1]}"},
            {},
            r"at most 65,536 characters of 'x', got",
        ),
        ({"cell": "gru(" + "9" * 30 + ")"}, {}, r"x: expected one step for gru\(9+\), got"),
        ({"x": '{"shape": [3], "dtype": ","}'}, {}, r"dtype: expected a name, got ','"),
        (
            {"cell": "mogrifier_lstm(3, rounds=99999)"},
            {},
            r"rounds: expected an integer in \[0, 100\]",
        ),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_file_that_does_not_fit_is_refused_in_words(file, metadata, arrays, message):
    rewrite(file, metadata, arrays)
    with pytest.raises(ValueError, match=message):
        interop.load(file)


def test_a_file_of_another_program_is_refused(file):
    library.save_file({"w": np.ones(3)}, file)
    with pytest.raises(ValueError, match=r"metadata of .* an entry 'jaxlstm_format', got none"):
        interop.load(file)


@pytest.mark.parametrize("damage", [lambda b: b[:-5], lambda b: b[:4], lambda b: b"\x80\x04" + b])
def test_a_damaged_file_is_refused(file, damage):
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ValueError, match=r"expected a safetensors file, got"):
        interop.load(file)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="path: expected a safetensors file"):
        interop.load(tmp_path / "a")


def test_double_precision_where_it_is_not_enabled_is_refused(tmp_path):
    x = X.astype(jnp.float64)
    interop.save(tmp_path / "a", GRU, params_of(GRU, x), x)
    with (
        jax.enable_x64(False),
        pytest.raises(ValueError, match=r"cell\.w_x.*: expected jax_enable_x64 to be set"),
    ):
        interop.load(tmp_path / "a")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(params=params_of(jl.gru(5))), r"params: cell\.w_x: expected shape \(3, 3, 4\)"),
        (dict(params=params_of(jl.lstm(4))), r"params: expected those of gru\(4\), got PyTreeDef"),
        (dict(x=X.astype(jnp.bfloat16)), r"params: cell\.w_x: expected .* of bfloat16, got"),
        (dict(x=[X]), r"x: expected arrays, NamedTuples or dicts of them, got \["),
        (dict(others={"cell.w": X}), r"others: expected names that do not begin with 'cell\.'"),
        (dict(others=[X]), r"others: expected arrays by name, got <class 'list'>"),
        (dict(others={"a": 1.0}), r"a: expected an array of numbers, .* got float 1\.0"),
        (dict(others={"a": {"b": X}}), r"a: expected an array of numbers"),
        (dict(others={"a": KEY}), r"a: expected an array of numbers"),
        (dict(notes={"epochs": 3}), r"notes: expected texts by name, got {'epochs': 3}"),
        (dict(notes={"a": "b" * (1 << 24)}), r"at most 16,777,216 characters of 'notes', got"),
        (dict(layer=GRU._replace(name="mine(3)")), r"layer: name: expected the call of a cell"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_can_t_be_saved_raises_and_leaves_the_old_file(file, options, message):
    before = file.read_bytes()
    options = dict(layer=GRU, params=params_of(GRU), x=X) | options
    with pytest.raises(ValueError, match=message):
        interop.save(file, **options)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]
