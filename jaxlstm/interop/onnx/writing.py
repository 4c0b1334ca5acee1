"""Trained layers as ONNX models of native `LSTM`, `GRU` and `RNN` nodes."""

from typing import Any

import jax
import numpy as np

import jaxlstm
from jaxlstm.base import Array, Cell, Layer, Params
from jaxlstm.checks import check, check_floating, check_shape, describe
from jaxlstm.combine.stack import apply_layer
from jaxlstm.interop.arrays import needed
from jaxlstm.interop.calls import call_of, check_kinds, parts_of
from jaxlstm.interop.onnx.layout import KINDS, attributes_of, direction_of

LEAST_OPSET = 13  # since which a Squeeze has its axes as an input
NOISE = ["zoneout", "variational_dropout", "recurrent_dropout"]


def to_onnx(
    layer: Cell | Layer,
    params: Params,
    *,
    lengths: bool = False,
    carry: bool = False,
    embedding: Array | None = None,
    output: tuple[Array, Array | None] | None = None,
    opset: int = 17,
) -> Any:
    """A trained layer as an ONNX model that ONNX Runtime runs, checked by `onnx.checker`.

    Batch and time are free: one model serves every size, of at least one step and one sequence
    (of none ONNX Runtime aborts). Names are readable: a path is that of our carry, `"h"` of a
    lone cell, `"0.forward.c"` of a stack's first layer, so that ONNX has

        inputs    xs (time, batch, D), or tokens (time, batch) int64 with an `embedding`;
                  lengths (batch,) int32 and carry.<path> (batch, H) where asked for
        outputs   ys (time, batch, H), zero at and after each length, or logits with an `output`;
                  last.<path> (batch, H): the carry after each sequence's last step

    and feeding last.<path> as carry.<path> streams. A sequence of no steps, whose last states
    ONNX Runtime sets to zero, keeps the carry that was put in, as with `scan`. Gates without
    weights ("nig", "nfg", "nog") are open by a bias of 100.

    Args:
      layer: an `lstm` (with peepholes or a gate_clip), `lstm_ablation` but "fgr", `gru`,
        `gru_reset_before` or `elman`; `bidirectional` of two such cells, or `backward` of one; or
        a `stack` of such layers. Of a `learned_start` the bare cell, its start fed as the carry.
      params: its params, in float32, or float16 (as then is all of the carry), which are what ONNX
        Runtime runs. Others first need `jax.tree.map(lambda a: a.astype("float32"), params)`.
      lengths: whether the model takes lengths.
      carry: whether the model takes the carry before the first step; zeros otherwise.
      embedding: (V, D), of which each token takes a row; None for `xs`.
      output: w (H, N) and b (N,), or None, of logits = ys w + b, in place of ys; None for `ys`.
      opset: ONNX's version of the operators, at least 13.

    Returns:
      An `onnx.ModelProto`; `onnx.save(model, "model.onnx")` writes it. Its metadata have the
      layer's name as `cell`.

    Raises:
      ValueError: if ONNX has no such layer (projections, layer normalisation, a bound of the cell
        state), or params, embedding, output or opset do not fit.
      ImportError: if onnx is not installed.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> from jaxlstm.interop.onnx import to_onnx
      >>> layer = jl.stack(jl.lstm(8), jl.gru(4))
      >>> model = to_onnx(layer, layer.init(jax.random.key(0), jnp.ones(3)), lengths=True)
      >>> [node.name for node in model.graph.node if node.op_type in ("LSTM", "GRU")]
      ['0.lstm', '1.gru']
      >>> [o.name for o in model.graph.output]
      ['ys', 'last.0.c', 'last.0.h', 'last.1.h']
    """
    onnx = needed("onnx", "onnx")
    newest = onnx.defs.onnx_opset_version()
    known = isinstance(opset, int) and LEAST_OPSET <= opset <= newest
    check(known, "opset", f"{LEAST_OPSET} to {newest}, the newest of this onnx", repr(opset))
    pair = output is None or (isinstance(output, tuple) and len(output) == 2)
    check(pair, "output", "a pair (w, b)", type(output).__name__)
    _check_layer(layer)
    parts = parts_of(layer, params)
    dtype = _dtype_of({"params": params, "embedding": embedding, "output": output})
    features = parts[0].cells[0][1].w_x.shape[0]
    one = jax.ShapeDtypeStruct((1, 1, features), dtype)
    states, ys = jax.eval_shape(lambda p, xs: apply_layer(layer, p, xs, None), params, one)

    graph = _Graph(onnx, dtype, lengths, carry)
    if embedding is None:
        x = graph.input("xs", ["time", "batch", features])
    else:
        rows = embedding.shape[:1]
        check_shape(embedding, (*rows, features), "embedding", "with rows as params have them")
        tokens = graph.input("tokens", ["time", "batch"], np.int64)
        x = graph.node("Gather", [graph.weight("embedding", embedding), tokens])
    if lengths:
        graph.input("lengths", ["batch"], np.int32)
    if lengths and carry:
        none = graph.weight("no_steps", np.zeros((), np.int32))
        some = graph.node("Greater", ["lengths", none])
        graph.node("Unsqueeze", [some, graph.numbers(1)], "some_steps")
    if output is None:
        graph.output("ys", ["time", "batch", ys.shape[-1]])
    else:
        w, b = output
        fits = w.ndim == 2 and w.shape[0] == ys.shape[-1]
        check(fits, "output", f"w ({ys.shape[-1]}, N), as the layer has outputs", describe(w))
        if b is not None:
            check_shape(b, w.shape[1:], "output", "as w has it")
        graph.output("logits", ["time", "batch", w.shape[1]])
    leaves = jax.tree_util.tree_flatten_with_path(states)[0]
    named = [(jax.tree_util.keystr(p, simple=True, separator="."), a) for p, a in leaves]
    for path, state in named:
        graph.output(f"last.{path}", ["batch", state.shape[-1]])
        if carry:
            graph.input(f"carry.{path}", ["batch", state.shape[-1]])
    paths = iter([path for path, _ in named])
    for n, part in enumerate(parts):
        final = n + 1 == len(parts) and output is None
        x = _add(graph, part, x, paths, "ys" if final else f"layer.{n}")
    if output is not None:
        end = "logits" if b is None else None
        product = graph.node("MatMul", [x, graph.weight("output.w", w)], end)
        if b is not None:
            graph.node("Add", [product, graph.weight("output.b", b)], "logits")
    return graph.model(opset, layer)


def _check_layer(layer):
    """Raises ValueError unless ONNX has every cell of the layer."""
    call = call_of(layer)
    if call.factory == "stack":
        for part in call.arguments["layers"]:
            _check_layer(part)
        return
    inner = {"bidirectional": ["forward", "backward"], "backward": ["bare"]}
    cells = [call.arguments[name] for name in inner.get(call.factory, [])] or [layer]
    for own in map(call_of, cells):
        bare = "the bare cell, which has the same params and no noise"
        check(own.factory not in NOISE, "layer", bare, own.factory)
        check_kinds(own, "ONNX", KINDS)


def _dtype_of(trees):
    """The dtype of all the arrays."""
    leaves = [(name, a) for name, tree in trees.items() for a in jax.tree.leaves(tree)]
    for name, a in leaves:
        check_floating(a, name)
        runs = a.dtype in (np.float32, np.float16) and a.dtype == leaves[0][1].dtype
        check(runs, name, "float32 or float16, as ONNX Runtime runs, and all the same", a.dtype)
    return leaves[0][1].dtype


def _add(graph, part, x, paths, name):
    """Adds a layer's nodes, the last of that name, which is that of its outputs."""
    calls, ways = [call for call, _ in part.cells], ["forward", "reverse"]
    if calls[0].factory == "backward":
        calls, ways = [call_of(calls[0].arguments["bare"])], ["reverse"]
    made = [direction_of(call, own) for call, (_, own) in zip(calls, part.cells, strict=True)]
    states = [[next(paths) for _ in range(2 if d.op == "LSTM" else 1)] for d in made]
    if len(calls) == 1:
        y = _node(graph, ways[0], x, made, states)
        return graph.node("Squeeze", [y, graph.numbers(1)], name)
    if calls[0] != calls[1]:
        of_ways = zip(ways, made, states, strict=True)
        ys = [_node(graph, way, x, [one], [own]) for way, one, own in of_ways]
        ys = [graph.node("Squeeze", [y, graph.numbers(1)]) for y in ys]
        if part.combine == "sum":
            return graph.node("Add", ys, name)
        return graph.node("Concat", ys, name, axis=2)
    y = _node(graph, "bidirectional", x, made, states)
    if part.combine == "sum":
        return graph.node("ReduceSum", [y, graph.numbers(1)], name, keepdims=0)
    y = graph.node("Transpose", [y], perm=[0, 2, 1, 3])
    both = 2 * made[0].r.shape[1]
    return graph.node("Reshape", [y, graph.numbers(0, 0, both)], name)


def _node(graph, way, x, made, states):
    """Adds a recurrent node, with its states in and out, and returns the name of its Y.

    `made` and `states` have an entry for each direction; an LSTM's states are paths to c and h.
    """
    op, both = made[0].op, len(made) == 2
    prefix = states[0][0].rpartition(".")[0]
    prefix = prefix.rpartition(".")[0] if both else prefix
    name = f"{prefix}.{op.lower()}".lstrip(".")
    weight = lambda entry, arrays: graph.weight(f"{name}.{entry}", np.stack(arrays))
    arrays = {"W": [d.w for d in made], "R": [d.r for d in made], "B": [d.b for d in made]}
    inputs = [x, *(weight(entry, a) for entry, a in arrays.items())]
    inputs.append("lengths" if graph.lengths else "")
    of_kinds = list(zip(*(own[::-1] for own in states), strict=True))  # of h, then of c
    for paths in of_kinds:
        inputs.append(_start(graph, paths) if graph.carry else "")
    if made[0].p is not None:
        inputs.append(weight("P", [d.p for d in made]))
    outputs = [f"{name}.Y", f"{name}.Y_h", f"{name}.Y_c"][: 1 + len(of_kinds)]
    attributes = attributes_of(made) | {"hidden_size": made[0].r.shape[1], "direction": way}
    graph.add(op, inputs, outputs, name, attributes)
    for last, paths in zip(outputs[1:], of_kinds, strict=True):
        for n, path in enumerate(paths):
            end = f"last.{path}" if not (graph.lengths and graph.carry) else None
            direction = graph.weight(f"direction.{n}", np.array(n, np.int64))
            state = graph.node("Gather", [last, direction], end, axis=0)
            if end is None:  # ONNX Runtime gives zeros where there are no steps
                kept = ["some_steps", state, f"carry.{path}"]
                graph.node("Where", kept, f"last.{path}")
    return outputs[0]


def _start(graph, paths):
    """The states (directions, B, H) that go into a node."""
    starts = [graph.node("Unsqueeze", [f"carry.{path}", graph.numbers(0)]) for path in paths]
    return starts[0] if len(starts) == 1 else graph.node("Concat", starts, axis=0)


class _Graph:
    """The parts of a model, as they come."""

    def __init__(self, onnx, dtype, lengths, carry):
        self.onnx, self.dtype, self.lengths, self.carry = onnx, dtype, lengths, carry
        self.nodes, self.weights, self.inputs, self.outputs = [], {}, [], []

    def input(self, name, shape, dtype=None):
        self.inputs.append(self._info(name, shape, dtype or self.dtype))
        return name

    def output(self, name, shape):
        self.outputs.append(self._info(name, shape, self.dtype))

    def _info(self, name, shape, dtype):
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self.onnx.helper.make_tensor_value_info(name, kind, shape)

    def weight(self, name, array):
        self.weights[name] = self.onnx.numpy_helper.from_array(np.asarray(array), name)
        return name

    def numbers(self, *values):
        """A list of integers, as of axes."""
        return self.weight("_".join(map(str, ("int64", *values))), np.array(values, np.int64))

    def node(self, op, inputs, output=None, **attributes):
        """Adds a node of one output, and returns that output's name."""
        output = output or f"{op.lower()}_{len(self.nodes)}"
        self.add(op, inputs, [output], output, attributes)
        return output

    def add(self, op, inputs, outputs, name, attributes):
        node = self.onnx.helper.make_node(op, inputs, outputs, name, **attributes)
        self.nodes.append(node)

    def model(self, opset, layer):
        helper, weights = self.onnx.helper, list(self.weights.values())
        graph = helper.make_graph(self.nodes, "jaxlstm", self.inputs, self.outputs, weights)
        operators = [helper.make_opsetid("", opset)]
        model = helper.make_model(
            graph,
            opset_imports=operators,
            ir_version=helper.find_min_ir_version_for(operators),
            producer_name="jaxlstm",
            producer_version=jaxlstm.__version__,
        )
        helper.set_model_props(model, {"cell": layer.name})
        self.onnx.checker.check_model(model, full_check=True)
        return model
