"""Params as safetensors files that say which cell they are of."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxlstm
from jaxlstm.base import Array, Cell, Layer, Params
from jaxlstm.checks import check, describe, is_concrete
from jaxlstm.interop.arrays import named_leaves, needed
from jaxlstm.interop.calls import call_of, rebuild
from jaxlstm.interop.specs import spec_to_text, text_to_spec

FORMAT = "1"
NAMES = ("jaxlstm_format", "jaxlstm", "jax", "cell", "x", "notes")
LONGEST = {"cell": 1 << 12, "x": 1 << 16, "notes": 1 << 24}  # characters: all take time to read
OF_CELL = "cell."  # before the names of the cell's own entries


class Saved(NamedTuple):
    """What a file holds.

    Attributes:
      layer: the Cell or Layer.
      params: its params.
      others: the arrays beside them, by name.
      notes: what was noted.
      versions: of this package and of JAX, that wrote the file.
    """

    layer: Cell | Layer
    params: Params
    others: dict[str, Array]
    notes: dict[str, str]
    versions: dict[str, str]


def save(
    path: str | os.PathLike,
    layer: Cell | Layer,
    params: Params,
    x: Any,
    *,
    others: Mapping[str, Array] | None = None,
    notes: Mapping[str, str] | None = None,
    own: Iterable[Any] = (),
) -> None:
    """Writes params to a safetensors file, with what it takes to rebuild the cell.

    The arrays of the cell are named after their paths, `"cell.0.w_x"`; the call that made the
    cell, the shapes of `x` and the versions are in the header. Any safetensors reader can read
    it. An old file of that name stays whole until the new one is.

    Args:
      path: of the file; its folder must exist.
      layer: the Cell or Layer.
      params: its params, in the shapes and dtypes that `layer.init` draws for `x`.
      x: one step of input, as for `init`: an array, a `jax.ShapeDtypeStruct`, or a NamedTuple or
        dict of them. Only shapes and dtypes count.
      others: arrays that are not the cell's, as an embedding's, by names of their own.
      notes: texts of your own by name.
      own: factories of cells and NamedTuples of inputs that are not of this package.

    Raises:
      ImportError: if safetensors is not installed.
      ValueError: if the cell can't be rebuilt of its name, params are not those of the cell, or a
        name or note is not plain.

    Example:
      See `load`.
    """
    library = needed("safetensors.numpy", "safetensors")
    own = tuple(own)
    call_of(layer, own)
    metadata = {
        "jaxlstm_format": FORMAT,
        "jaxlstm": jaxlstm.__version__,
        "jax": jax.__version__,
        "cell": layer.name,
        "x": spec_to_text(x),
        "notes": json.dumps(_plain(notes or {})),
    }
    _check_lengths(metadata, "layer, x, notes")
    expected = _expected(layer, text_to_spec(metadata["x"], own))
    structure: Any = jax.tree.structure(params)
    same = structure == jax.tree.structure(expected)
    check(same, "params", f"those of {layer}", structure)
    entries = _of_cell(params)
    _fit(entries, _of_cell(expected), "params")
    others = {} if others is None else others
    check(isinstance(others, Mapping), "others", "arrays by name", type(others))
    for name, array in others.items():
        plain = isinstance(name, str) and not name.startswith(OF_CELL)
        check(plain, "others", f"names that do not begin with {OF_CELL!r}", repr(name))
        entries[name] = array
    arrays = {name: _plain_array(a, name) for name, a in entries.items()}
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"path: expected a file in a folder that is there, got {path}")
    beside = path.with_name(path.name + ".new")
    try:
        library.save_file(arrays, beside, metadata)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def load(path: str | os.PathLike, *, own: Iterable[Any] = ()) -> Saved:
    """The cell of a file that `save` has written, and its params; nothing in it is executed.

    Args:
      path: of the file.
      own: factories of cells and NamedTuples of inputs that are not of this package.

    Returns:
      A `Saved`; its arrays are as they were, bit for bit.

    Raises:
      ImportError: if safetensors is not installed.
      FileNotFoundError: if there is no such file.
      ValueError: if the file is damaged, of another kind, or of a newer format; if its cell
        can't be rebuilt; if an array of the cell is missing, too many, or of another shape or
        dtype than the cell has, in which case the error names it.

    Example:
      >>> import tempfile
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> from jaxlstm.interop import safetensors
      >>> cell, x = jl.stack(jl.lstm(8, peephole=True), jl.gru(4)), jnp.zeros(3)
      >>> with tempfile.TemporaryDirectory() as folder:
      ...   safetensors.save(f"{folder}/model", cell, cell.init(jax.random.key(0), x), x)
      ...   saved = safetensors.load(f"{folder}/model")
      >>> saved.layer is cell, saved.params[1].w_x.shape
      (True, (8, 3, 4))
    """
    library = needed("safetensors", "safetensors")
    path, own = Path(path), tuple(own)
    if not path.is_file():
        raise FileNotFoundError(f"path: expected a safetensors file, got {path}, which is none")
    try:
        with library.safe_open(path, framework="flax") as file:
            metadata = file.metadata() or {}
            arrays = file.get_tensors()
            dtypes = {name: file.get_slice(name).get_dtype() for name in arrays}
    except library.SafetensorError as error:
        raise ValueError(f"{path}: expected a safetensors file, got {error}") from error
    source = f"metadata of {path}"
    for name in NAMES:
        check(name in metadata, source, f"an entry {name!r}", ", ".join(sorted(metadata)) or "none")
    written = metadata["jaxlstm_format"]
    check(written == FORMAT, source, f"format {FORMAT!r}, as this version reads", repr(written))
    _check_lengths(metadata, source)
    wide = [name for name, dtype in dtypes.items() if dtype in ("F64", "I64", "U64")]
    fits = jax.config.read("jax_enable_x64") or not wide
    check(fits, f"{path}: {', '.join(wide)}", "jax_enable_x64 to be set", "64 bits without it")
    try:
        layer, x = rebuild(metadata["cell"], own), text_to_spec(metadata["x"], own)
        notes, expected = _plain(json.loads(metadata["notes"])), _expected(layer, x)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{source}: {error}") from error
    of_cell = {name: a for name, a in arrays.items() if name.startswith(OF_CELL)}
    names = _of_cell(expected)
    _fit(of_cell, names, str(path))
    params = jax.tree.unflatten(jax.tree.structure(expected), [of_cell[name] for name in names])
    others = {name: a for name, a in arrays.items() if name not in of_cell}
    versions = {name: metadata[name] for name in ("jaxlstm", "jax")}
    return Saved(layer, params, others, notes, versions)


def _expected(layer, x):
    """The shapes and dtypes of the cell's params for a step x."""
    try:
        return jax.eval_shape(layer.init, jax.random.key(0), x)
    except (ArithmeticError, AttributeError, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"x: expected one step for {layer}, got {x}: {error}") from error


def _check_lengths(metadata, source):
    for name, most in LONGEST.items():
        length = len(metadata[name])
        check(length <= most, source, f"at most {most:,} characters of {name!r}", f"{length:,}")


def _of_cell(params):
    return {OF_CELL + name: leaf for name, leaf in named_leaves(params).items()}


def _fit(entries, expected, source):
    """Raises ValueError unless the entries have the names, shapes and dtypes expected."""
    missing = [name for name in expected if name not in entries]
    check(not missing, source, "an entry for each array of the cell", f"none {', '.join(missing)}")
    other = [name for name in entries if name not in expected]
    check(not other, source, "no other entries of the cell", ", ".join(other))
    for name, like in expected.items():
        same = (entries[name].shape, entries[name].dtype) == (like.shape, like.dtype)
        check(same, f"{source}: {name}", describe(like), describe(entries[name]))


def _plain_array(array, name):
    """A NumPy array of it; ValueError if it is none, or of a kind that `load` has not."""
    known = hasattr(array, "__array__") and hasattr(array, "dtype") and is_concrete(array)
    known = known and (jnp.issubdtype(array.dtype, np.number) or array.dtype == bool)
    check(known, f"{name}", "an array of numbers, not a traced one", describe(array))
    own = np.ascontiguousarray(array)
    fits = jnp.asarray(own).dtype == own.dtype
    check(fits, f"{name}", "jax_enable_x64 to be set, or 32 bits", describe(own))
    return own.reshape(array.shape)


def _plain(notes):
    texts = isinstance(notes, Mapping)
    texts = texts and all(isinstance(n, str) for both in notes.items() for n in both)
    check(texts, "notes", "texts by name", repr(notes))
    return dict(notes)
