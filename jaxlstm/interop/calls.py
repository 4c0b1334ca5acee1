"""The call that a cell was made by, read back from its name."""

import ast
import inspect
import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax

import jaxlstm
from jaxlstm.base import Cell, Layer, Params
from jaxlstm.checks import check, describe

EXCHANGED = (  # cells whose outputs are of the size that w_h takes
    *("lstm", "lstm_ablation", "gru", "gru_reset_before", "elman", "janet", "convlstm"),
)


class Call(NamedTuple):
    """A call of a factory of cells.

    Attributes:
      factory: its name, `"lstm"`.
      arguments: all of its arguments by name, defaults too; cells among them are cells, and
        those of a `*layers` a tuple.
    """

    factory: str
    arguments: dict[str, Any]


class Part(NamedTuple):
    """One layer of a network, of one cell or of one for each direction.

    Attributes:
      cells: the call of the cell and its params; of two directions the forward one first.
      combine: of two directions, how outputs are combined; else None.
    """

    cells: tuple[tuple[Call, Params], ...]
    combine: str | None

    def __str__(self) -> str:
        return " and ".join(call.factory for call, _ in self.cells)

    @property
    def outputs(self) -> int | None:
        """The size of an output, of both directions together; None of cells of no library."""
        cells = [(_bare(call), params) for call, params in self.cells]
        if any(call.factory not in EXCHANGED for call, _ in cells):
            return None
        sizes = [p.w_h.shape[-3 if call.factory == "convlstm" else 0] for call, p in cells]
        return sizes[0] if self.combine == "sum" else sum(sizes)


def rebuild(name: str, factories: Iterable[Any] = ()) -> Cell | Layer:
    """The cell or layer of that name; nothing but factories of cells is ever called.

    Args:
      name: as `Cell.name` and `Layer.name` have it, `"stack(lstm(64), gru(32))"`.
      factories: functions made by `@cell` that are not of this package.

    Raises:
      ValueError: if the name is not a call of factories with plain values, or a factory has the
        name of another.
    """
    known = _factories(factories)
    call = _read(name, known)
    try:
        return _make(known, *call)
    except (TypeError, ValueError) as error:
        raise ValueError(f"name: expected the call of a cell, got {name!r}: {error}") from error


def call_of(layer: Cell | Layer, factories: Iterable[Any] = ()) -> Call:
    """The call that made the cell or layer.

    Raises:
      ValueError: if that call does not give this very cell, as where it was made by a factory
        that is not among these.
    """
    check(isinstance(layer, Cell | Layer), "layer", "a Cell or a Layer", describe(layer))
    known = _factories(factories)
    try:
        call = _read(layer.name, known)
    except ValueError as error:
        raise ValueError(f"layer: {error}") from error
    same = _make(known, *call) == layer
    check(same, "layer", f"what {layer.name} makes", "another one of that name")
    return call


def parts_of(layer: Cell | Layer, params: Params) -> list[Part]:
    """The layers of a network from the first to the last, each of one or both directions.

    Raises:
      ValueError: if a call can't be read, the params are not of those cells, or a layer takes
        inputs of another size than the outputs of the one before.
    """
    call = call_of(layer)
    if call.factory == "bidirectional":
        return [_both(call, params)]
    if call.factory == "backward":
        bare = call.arguments["bare"]
        _check_params(bare, call_of(bare), params)
        return [Part(((call, params),), None)]
    if call.factory != "stack":
        _check_params(layer, call, params)
        return [Part(((call, params),), None)]
    layers = call.arguments["layers"]
    fits = isinstance(params, tuple) and len(params) == len(layers)
    check(fits, "params", f"a tuple of {len(layers)}, as {layer} has layers", type(params).__name__)
    parts = [part for pair in zip(layers, params, strict=True) for part in parts_of(*pair)]
    for below, part in itertools.pairwise(parts):
        inputs = _features(*part.cells[0])
        expected = f"w_x of {below.outputs} inputs in {part}, as many as outputs below"
        check(below.outputs in (None, inputs), "params", expected, inputs)
    return parts


def _both(call, params):
    known = isinstance(params, jaxlstm.BidirectionalParams)
    check(known, "params", "BidirectionalParams", type(params).__name__)
    cells = (call.arguments[name] for name in ("forward", "backward"))
    parts = [parts_of(cell, p) for cell, p in zip(cells, params, strict=True)]
    alone = all(len(part) == 1 for part in parts)
    check(alone, "layer", "one cell in each direction", call.arguments)
    ahead, back = (part[0].cells[0] for part in parts)
    sizes = _features(*ahead), _features(*back)
    check(sizes[0] == sizes[1], "params", "inputs of one size in both directions", sizes)
    return Part((ahead, back), call.arguments["combine"])


def _bare(call):
    """The call of the cell that runs backward, or the one given."""
    return call_of(call.arguments["bare"]) if call.factory == "backward" else call


def _features(call, params):
    return params.w_x.shape[-3 if _bare(call).factory == "convlstm" else 0]


def _check_params(cell, call, params):
    """Raises ValueError unless the params are of that cell, as far as it has weights w_x."""
    weighted = hasattr(params, "w_x") and len(params.w_x.shape) > 3 * (call.factory == "convlstm")
    made_of = [call.arguments.get("layers", ()), call.arguments.values()]
    wrapper = any(isinstance(value, Cell | Layer) for value in itertools.chain(*made_of))
    expected = "cells, both directions of them and stacks of these"
    check(weighted or not wrapper, "layer", expected, cell)
    check(weighted, "params", f"those of {cell}", type(params).__name__)
    x = (_features(call, params),)
    if call.factory == "convlstm":
        space = (1,) * len(call.arguments["kernel"])
        x = (*(space if params.peephole is None else params.peephole.shape[1:-1]), *x)
    key, x = jax.random.key(0), jax.ShapeDtypeStruct(x, params.w_x.dtype)
    expected = jax.eval_shape(cell.init, key, x)
    shapes = lambda tree: jax.tree.map(lambda a: tuple(a.shape), tree)
    fits = type(params) is type(expected) and shapes(params) == shapes(expected)
    check(fits, "params", f"those of {cell}, {shapes(expected)}", shapes(params))


def _factories(more):
    ours = (getattr(jaxlstm, name) for name in jaxlstm.__all__)
    known = {f.__name__: f for f in ours if inspect.isfunction(f) and hasattr(f, "__wrapped__")}
    for factory in more:
        name = factory.__name__
        check(name not in known, "factories", "names of their own", f"another {name}")
        known[name] = factory
    return known


def _read(name, known):
    """The call that is written there."""
    try:
        return _call(ast.parse(name, mode="eval").body, known)
    except (MemoryError, RecursionError, SyntaxError, TypeError, ValueError) as error:
        expected = "the call of a cell"
        raise ValueError(f"name: expected {expected}, got {name[:200]!r}: {error}") from error


def _call(node, known):
    named = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    if not named or node.func.id not in known or not all(word.arg for word in node.keywords):
        raise ValueError(f"{ast.unparse(node)[:200]} is no call of {', '.join(sorted(known))}")
    args = [_value(arg, known) for arg in node.args]
    kwargs = {word.arg: _value(word.value, known) for word in node.keywords}
    bound = inspect.signature(known[node.func.id]).bind(*args, **kwargs)
    bound.apply_defaults()
    return Call(node.func.id, bound.arguments)


def _make(known, factory, arguments):
    bound = inspect.BoundArguments(inspect.signature(known[factory]), arguments)
    return known[factory](*bound.args, **bound.kwargs)


def _value(node, known):
    if isinstance(node, ast.Call):
        return _make(known, *_call(node, known))
    if isinstance(node, ast.Name) and node.id == "inf":
        return math.inf
    return ast.literal_eval(node)


def check_kinds(call: Call, library: str, kinds: Mapping[str, Iterable[str]]) -> None:
    """Raises ValueError unless the library has such a cell, of these options of each factory."""
    described = [f"{kind}({', '.join(options)})" for kind, options in kinds.items()]
    expected = f"one of {', '.join(described)}, as {library} has"
    check(call.factory in kinds, "layer", expected, call.factory)
    parameters = inspect.signature(getattr(jaxlstm, call.factory)).parameters
    for name, value in call.arguments.items():
        default = parameters[name].default
        given = default is not inspect.Parameter.empty and value != default
        lacks = f"{call.factory}'s {name}"
        expected = f"its default {default!r}, as {library} has no other"
        check(not given or name in kinds[call.factory], lacks, expected, repr(value))
