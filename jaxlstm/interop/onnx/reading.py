"""Weights of ONNX's `LSTM`, `GRU` and `RNN` nodes, in; out by `writing`."""

import itertools
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxlstm.base import Cell, Layer, Params
from jaxlstm.checks import check
from jaxlstm.combine.backward import backward
from jaxlstm.combine.bidirectional import BidirectionalParams, bidirectional
from jaxlstm.combine.stack import stack
from jaxlstm.interop.arrays import Entries, needed
from jaxlstm.interop.onnx.graph import (
    REARRANGING,
    attributes_of,
    constants_of,
    rearranged,
    starts_of,
)
from jaxlstm.interop.onnx.layout import ORDER, PLAIN, Direction, cell_of

INPUTS = ["X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"]
ATTRIBUTES = [
    *("activations", "activation_alpha", "activation_beta", "clip", "direction", "hidden_size"),
    *("input_forget", "layout", "linear_before_reset"),
]


class _Node(NamedTuple):
    label: str  # for errors
    x: str  # names of tensors
    y: str
    direction: str
    batch_first: bool
    made: list[tuple[Cell, Params]]  # one for each direction


def from_onnx(model: Any, *, nodes: Sequence[str] | None = None) -> tuple[Cell | Layer, Params]:
    """The layer, and its params, that the recurrent nodes of an ONNX model are.

    All else in the model (an embedding, the head) is left to the caller, and so are what goes in
    at run time, `sequence_lens` (the `lengths` of `scan`) and initial states that the model takes
    as inputs (its `carry`). ONNX's gates are i, o, f, c and z, r, h, and of its two biases only
    the sum counts, but for the candidate of a GRU with `linear_before_reset`. A sequence of no
    steps gives last states of zero there; here they are the initial carry. Of what `to_onnx`
    wrote, a stack in a stack comes back as one stack, and an `lstm_ablation` "np", "nig", "nfg" or
    "nog" as the LSTM that does the same.

    Args:
      model: an `onnx.ModelProto`, its bytes, or the path of a file.
      nodes: which LSTM, GRU and RNN nodes, by their names, or by their first outputs where they
        have none; None for all. Each must take what the one before gives, merely rearranged; two
        of one input, forward and reverse, whose outputs are put together, are both directions.

    Returns:
      A Cell, or what is `bidirectional` or `backward`, or a stack of such; and its params, in the
      dtype of the weights. `scan` and `apply` take time first, whatever the node's layout.

    Raises:
      ValueError: if there is no such node, a weight is no constant or of a shape that does not
        fit, a node has attributes that no cell here has or constant initial states other than
        zero, or the nodes do not follow one upon another.
      ImportError: if onnx is not installed.

    Example:
      >>> import jax
      >>> import jaxlstm as jl
      >>> from jaxlstm.interop.onnx import from_onnx, to_onnx
      >>> params = jl.init_gru(jax.random.key(0), features=3, hidden=8)
      >>> cell, same = from_onnx(to_onnx(jl.gru(8), params))
      >>> cell, bool((same.w_h == params.w_h).all())
      (gru(8), True)
    """
    onnx = needed("onnx", "onnx")
    if isinstance(model, bytes):
        model = onnx.load_from_string(model)
    elif isinstance(model, str | os.PathLike):
        model = onnx.load(model)
    check(
        isinstance(model, onnx.ModelProto),
        "model",
        "an onnx.ModelProto, bytes or a path",
        type(model),
    )
    constants = constants_of(model.graph)
    starts = starts_of(model.graph, constants)
    read = [_read(node, constants, starts) for node in _chosen(model.graph, nodes)]
    units = _units(read)
    combines = _combines(units, *_flows(model.graph, constants, read, (5, 7)))
    if isinstance(combines, str):  # as where a Reshape holds the sizes of the model
        sizes = _sizes(onnx, model, read[0])
        combines = _combines(units, *_flows(model.graph, constants, read, sizes))
    if isinstance(combines, str):
        raise ValueError(combines)
    found = list(map(_layer, units, combines))
    if len(found) == 1:
        return found[0]
    return stack(*(layer for layer, _ in found)), tuple(params for _, params in found)


def _chosen(graph, names):
    """The recurrent nodes of those names, in the graph's order."""
    there = {}
    for node in graph.node:
        if node.op_type in ORDER and node.domain in ("", "ai.onnx"):
            name = node.name if node.name not in ("", *there) else _output(node)
            there[name] = node
    check(bool(there), "model", "LSTM, GRU or RNN nodes", "none")
    if names is None:
        return list(there.values())
    names = [names] if isinstance(names, str) else list(names)
    unknown = [name for name in names if name not in there]
    expected = f"some of {', '.join(map(repr, there))}"
    check(bool(names) and not unknown, "nodes", expected, unknown or names)
    return [node for name, node in there.items() if name in names]


def _output(node):
    return next(name for name in node.output if name)


def _read(node, constants, starts):
    """A node's weights, as cells."""
    name, op = node.name or _output(node), node.op_type
    label = f"{op} {name!r}"
    given = dict(zip(INPUTS, node.input, strict=False))
    given = {entry: tensor for entry, tensor in given.items() if tensor}
    for entry in ("W", "R", "B", "P"):
        fixed = entry not in given or given[entry] in constants
        check(fixed, f"{label} {entry!r}", "an initializer or a constant", given.get(entry))
    for entry in ("initial_h", "initial_c"):
        start = starts.get(given[entry]) if entry in given else "zero"
        expected = "zeros or an input of the model, as no start goes with a cell's weights"
        check(start in ("zero", "given"), f"{label} {entry!r}", expected, given.get(entry))
    attributes = attributes_of(node)
    for attribute in attributes:
        check(attribute in ATTRIBUTES, label, f"some of {', '.join(ATTRIBUTES)}", attribute)
    direction, ways = (
        attributes.get("direction", "forward"),
        ["forward", "reverse", "bidirectional"],
    )
    check(direction in ways, f"{label} 'direction'", f"one of {ways}", repr(direction))
    count = 2 if direction == "bidirectional" else 1
    arrays = {entry: constants[given[entry]] for entry in "WRBP" if entry in given}
    arrays = _arrays(Entries(label, arrays), len(ORDER[op]), count, attributes.get("hidden_size"))
    activations = _activations(attributes, PLAIN[op] * count, label)
    size = len(PLAIN[op])
    options = ("clip", "input_forget", "linear_before_reset")
    options = {name: attributes[name] for name in options if name in attributes}
    made = []
    for n in range(count):
        own = tuple(activations[n * size : (n + 1) * size])
        own_arrays = (None if a is None else a[n] for a in arrays)
        made.append(cell_of(Direction(op, own, options, *own_arrays), label))
    batch_first = bool(attributes.get("layout", 0))
    y = node.output[0] or f"{label} Y"
    return _Node(label, node.input[0], y, direction, batch_first, made)


def _arrays(entries, gates, count, hidden):
    """W, R, B and P, of zeros and None where they are missing."""
    r = np.asarray(entries.take("R", (count, None, hidden)))
    hidden = r.shape[2]
    expected = f"{gates} times {hidden} rows"
    check(r.shape[1] == gates * hidden, f"{entries.source} 'R'", expected, r.shape)
    w = np.asarray(entries.take("W", (count, gates * hidden, None)))
    b = np.zeros((count, 2 * gates * hidden), w.dtype)
    if "B" in entries:
        b = np.asarray(entries.take("B", b.shape))
    p = np.asarray(entries.take("P", (count, 3 * hidden))) if "P" in entries else None
    return w, r, b, p


def _activations(attributes, plain, label):
    """In small letters, `Affine` being the identity."""
    found = [name.lower() for name in attributes.get("activations", plain)]
    check(len(found) == len(plain), f"{label} 'activations'", f"{len(plain)} of them", found)
    affine = found.count("affine")  # the one kind here that takes values from these lists
    beta = attributes.get("activation_beta", [0.0] * affine)
    alpha = attributes.get("activation_alpha", [])  # by default 0 in ONNX Runtime, 1 elsewhere
    for name, values, value in (("alpha", alpha, 1.0), ("beta", beta, 0.0)):
        same = list(values[:affine]) == [value] * affine
        check(same, f"{label} 'activation_{name}'", f"{value} for Affine, the identity", values)
    return found


def _units(read):
    """The nodes one by one, or two where they are the directions of one input."""
    units = []
    for node in read:
        last = units[-1] if units else []
        ways = {n.direction for n in (*last, node)}
        if len(last) == 1 and last[0].x == node.x and ways == {"forward", "reverse"}:
            units[-1] = sorted([*last, node], key=lambda n: n.direction)
        else:
            units.append([node])
    return units


def _layer(unit, combine):
    """The layer and the params of one node, or of two that are the directions of one layer."""
    made = [pair for node in unit for pair in node.made]
    if len(made) == 2:
        (ahead, ahead_params), (back, back_params) = made
        layer = bidirectional(ahead, back, combine=combine)
        return layer, BidirectionalParams(ahead_params, back_params)
    cell, params = made[0]
    return (backward(cell) if unit[0].direction == "reverse" else cell), params


def _sizes(onnx, model, node):
    """T and B of that node's outputs, where the model fixes them."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    infos = {info.name: info for info in (*graph.value_info, *graph.output)}
    dims = infos[node.y].type.tensor_type.shape.dim if node.y in infos else []
    time, batch = (1, 0) if node.batch_first else (0, 2)
    known = [dims[n].dim_value if len(dims) == 4 else 0 for n in (time, batch)]
    return known[0] or 5, known[1] or 7


def _flows(graph, constants, read, sizes):
    """What tensors hold of the nodes' outputs, and these (T, B, H) for each direction.

    The numbers are random marks of their places, so that a sum of two tells which.
    """
    rng = np.random.default_rng(0)
    marks, outputs = {}, {}
    for node in read:
        hidden = [params.w_x.shape[-1] for _, params in node.made]
        outputs[node.y] = [rng.integers(2**40, size=(*sizes, h)) for h in hidden]
        y = np.stack(outputs[node.y], 1)
        marks[node.y] = y.transpose(2, 0, 1, 3) if node.batch_first else y
    found = rearranged(graph, {**constants, **marks})
    return {name: a for name, a in found.items() if name not in constants}, outputs


def _combines(units, flows, outputs):
    """How each unit's outputs are put together, None for one direction; or what is wrong."""
    combines = []
    for unit, after in itertools.zip_longest(units, units[1:]):
        label = " and ".join(node.label for node in unit)
        ways = [way for node in unit for way in outputs[node.y]]
        whole = {None: ways[0]}
        if len(ways) == 2:
            whole = {"concatenate": np.concatenate(ways, -1)}
            whole |= {"sum": sum(ways)} if ways[0].shape == ways[1].shape else {}
        if after is None:
            seen = [*flows.values(), *map(_swapped, flows.values())]
            error = f"{label}: expected outputs that the model puts side by side or adds"
        else:
            node = after[0]
            x = flows.get(node.x, np.zeros(()))
            seen = [_swapped(x) if node.batch_first else x]
            error = (
                f"{node.label} 'X': expected the outputs of {label}, through {REARRANGING} alone, "
                f"got {node.x!r}; nodes=[...] takes some of the nodes at a time"
            )
        found = [how for how, y in whole.items() if any(np.array_equal(y, a) for a in seen)]
        if not found and after is None and len(unit) == 1:
            found = list(whole)  # of one node, whatever becomes of its outputs
        if not found:
            return error
        combines.append(found[0])
    return combines


def _swapped(a):
    """Of batch and time, which are first."""
    return a.swapaxes(0, 1) if a.ndim > 1 else a
