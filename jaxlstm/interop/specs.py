"""The shapes and dtypes of one step of input as text, and back."""

import json
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

import jaxlstm
from jaxlstm.checks import check


def spec_to_text(x: Any) -> str:
    """JSON of the shapes and dtypes of a tree of arrays, its NamedTuples by their names."""
    return json.dumps(_encode(x))


def text_to_spec(text: str, types: Iterable[Any] = ()) -> Any:
    """The tree of `jax.ShapeDtypeStruct` that `spec_to_text` has written.

    Args:
      text: the JSON.
      types: NamedTuples that are not of this package.

    Raises:
      ValueError: if the text is anything else.
    """
    ours = [getattr(jaxlstm, name) for name in jaxlstm.__all__ if name.endswith("Input")]
    known = {t.__name__: t for t in (*ours, *types) if hasattr(t, "_fields")}
    try:
        return _decode(json.loads(text), known)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        expected = "the shapes and dtypes of one step"
        raise ValueError(f"x: expected {expected}, got {text!r}: {error}") from error


def _encode(x):
    if hasattr(x, "shape") and hasattr(x, "dtype"):
        return {"shape": list(x.shape), "dtype": str(x.dtype)}
    if hasattr(x, "_fields"):
        return {"type": type(x).__name__, "fields": list(map(_encode, x))}
    plain = isinstance(x, dict) and all(isinstance(key, str) for key in x)
    check(plain, "x", "arrays, NamedTuples or dicts of them", repr(x))
    return {"entries": {key: _encode(value) for key, value in x.items()}}


def _decode(node, known):
    if "entries" in node:
        return {key: _decode(value, known) for key, value in node["entries"].items()}
    if "type" in node:
        check(node["type"] in known, "type", f"one of {', '.join(sorted(known))}", node["type"])
        return known[node["type"]](*(_decode(field, known) for field in node["fields"]))
    shape = tuple(node["shape"])
    for size in shape:
        check(type(size) is int and size >= 0, "shape", "sizes", repr(size))
    dtype = node["dtype"]  # of what is no plain name NumPy would make a dtype of its own
    check(type(dtype) is str and dtype.isidentifier(), "dtype", "a name", repr(dtype))
    return jax.ShapeDtypeStruct(shape, jnp.dtype(dtype))
