"""Weights of Flax NNX's recurrent modules, in and out."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxlstm.base import Cell, Layer, Params
from jaxlstm.cells.elman import ElmanParams, elman
from jaxlstm.cells.gru import GRUParams, gru
from jaxlstm.cells.lstm import LSTMParams, lstm
from jaxlstm.checks import check, is_concrete
from jaxlstm.combine.backward import backward
from jaxlstm.combine.bidirectional import BidirectionalParams, bidirectional
from jaxlstm.combine.stack import stack
from jaxlstm.interop.arrays import Entries, join, split
from jaxlstm.interop.calls import call_of, check_kinds, parts_of
from jaxlstm.interop.nnx_modules import RNN, RecurrentCell

KINDS = {"lstm": [], "gru": [], "elman": ["activation"]}  # i, f, g, o; r, z, n
SIGMOID, TANH, RELU = (nnx.sigmoid, jax.nn.sigmoid), (nnx.tanh, jnp.tanh), (nnx.relu, jax.nn.relu)
COMBINE = {"concatenate": nnx.Bidirectional.merge_fn, "sum": jnp.add}


def from_nnx(module: Any) -> tuple[Cell | Layer, Params]:
    """The layer, and its params, that an NNX module is.

    The weights may be traced, as in a module merged inside of `jit` or `grad`. A GRUCell has no
    bias inside the reset gate's product: `b_n` is zero. Where time stands, whether a module gives
    its carry, and the seeds of carries that are zero are no part of a layer. Modules that two
    places share become two.

    Args:
      module: an `nnx.LSTMCell`, `OptimizedLSTMCell`, `GRUCell`, `SimpleCell` or our
        `RecurrentCell`; an `nnx.RNN` or our `RNN` of one of them, reversed ones in their inputs'
        order; an `nnx.Bidirectional` of two of these; or an `nnx.Sequential` of them all.

    Returns:
      A Cell, a Layer (`backward`, `bidirectional`) or a `stack`; and its params, in the dtype of
      the module's. `scan` and `apply` take time first.

    Raises:
      ValueError: if it is another module, a subclass too; has an option that our layer has not
        (other activations, a residual, another dtype than that of its params, ...); or an entry
        is missing, too many, or of another shape.

    Example:
      >>> from flax import nnx
      >>> from jaxlstm.interop.nnx import from_nnx
      >>> rnn = nnx.RNN(nnx.OptimizedLSTMCell(3, 8, rngs=nnx.Rngs(0)))
      >>> cell, params = from_nnx(rnn)
      >>> cell, params.w_x.shape
      (lstm(8), (3, 4, 8))
    """
    return _from_module(module, "")


def _from_module(module, path):
    kind, inside = type(module), lambda name: _from_module(getattr(module, name), f"{path}{name}/")
    if kind in _CELLS:
        return _from_cell(module, path)
    if kind is RecurrentCell:
        _check_dtype(module, jax.tree.leaves(module.params), path)
        return module.cell, module.params
    if kind in (nnx.RNN, RNN):
        cell, params = inside("cell")
        in_order = module.keep_order or not module.reverse
        check(in_order, f"{path}keep_order", "True, as reverse is", module.keep_order)
        return (backward(cell) if module.reverse else cell), params
    if kind is nnx.Bidirectional:
        known = [name for name, merge in COMBINE.items() if module.merge_fn == merge]
        expected = "concatenation (the default) or jnp.add"
        check(bool(known), f"{path}merge_fn", expected, module.merge_fn)
        # whatever these two are told of a direction, it tells them itself
        ahead, back = (_of_rnn(module, name, path) for name in ("forward_rnn", "backward_rnn"))
        layer = bidirectional(ahead[0], back[0], combine=known[0])
        return layer, BidirectionalParams(ahead[1], back[1])
    expected = f"one of {', '.join(cell.__name__ for cell in _CELLS)}, RecurrentCell, RNN, "
    expected += "Bidirectional or Sequential"
    check(kind is nnx.Sequential, f"{path}module", expected, kind.__name__)
    layers = [_in_sequence(layer, f"{path}layers/{n}/") for n, layer in enumerate(module.layers)]
    majors = {layer.time_major for layer in module.layers}
    check(len(majors) == 1, f"{path}time_major", "the same in all layers", majors)
    return stack(*(layer for layer, _ in layers)), tuple(params for _, params in layers)


def _of_rnn(module, name, path):
    rnn, path = getattr(module, name), f"{path}{name}/"
    check(type(rnn) in (nnx.RNN, RNN), f"{path}module", "an RNN", type(rnn).__name__)
    return _from_module(rnn.cell, f"{path}cell/")


def _in_sequence(layer, path):
    known = type(layer) in (nnx.RNN, RNN, nnx.Bidirectional)
    check(known, f"{path}module", "an RNN or Bidirectional", type(layer).__name__)
    return _from_module(layer, path)


def _from_cell(module, path):
    check(module.carry_init is None, f"{path}carry_init", "None, for zeros", module.carry_init)
    default = nnx.nn.dtypes.promote_dtype
    promote = module.promote_dtype
    check(promote is default, f"{path}promote_dtype", "Flax's default", promote)
    state = nnx.to_flat_state(nnx.state(module, nnx.Not(nnx.RngState)))
    arrays = {path + "/".join(map(str, name)): variable[...] for name, variable in state}
    entries = Entries("params", arrays)
    take = lambda name, *shape: entries.take(path + name, shape)
    cell, params = _CELLS[type(module)](module, take, path)
    entries.finish()
    _check_dtype(module, jax.tree.leaves(params), path)
    return cell, params


def _check_dtype(module, arrays, path):
    """What is computed in is the arrays' own dtype here."""
    dtype = None if module.dtype is None else jax.dtypes.canonicalize_dtype(module.dtype)
    own = sorted({str(a.dtype) for a in arrays})
    expected = f"None or that of the params, {', '.join(own)}, as a Cell computes in"
    check(dtype is None or own in ([], [str(dtype)]), f"{path}dtype", expected, dtype)


def _check_function(module, name, known, path):
    given = getattr(module, name)
    expected = " or ".join(functions[0].__name__ for functions in known)
    shown = getattr(given, "__name__", given)
    check(any(given in functions for functions in known), path + name, expected, shown)


def _check_gates(module, path):
    _check_function(module, "gate_fn", [SIGMOID], path)
    _check_function(module, "activation_fn", [TANH], path)


def _from_lstm_cell(module, take, path):
    _check_gates(module, path)
    features, hidden = module.in_features, module.hidden_features
    w_x = [take(f"{name}/kernel", features, hidden) for name in LSTM_CELL]
    w_h = [take(f"h{name[1]}/kernel", hidden, hidden) for name in LSTM_CELL]
    b = [take(f"h{name[1]}/bias", hidden) for name in LSTM_CELL]
    return lstm(hidden), LSTMParams(*(jnp.stack(gates, -2) for gates in (w_x, w_h, b)))


def _from_optimized_lstm_cell(module, take, path):
    _check_gates(module, path)
    hidden = module.hidden_features
    w_x = take("dense_i/kernel", module.in_features, 4 * hidden)
    w_h, b = take("dense_h/kernel", hidden, 4 * hidden), take("dense_h/bias", 4 * hidden)
    return lstm(hidden), LSTMParams(*(split(w, 4) for w in (w_x, w_h, b)))


def _from_gru_cell(module, take, path):
    _check_gates(module, path)
    hidden = module.hidden_features
    w_x, b = (
        take("dense_i/kernel", module.in_features, 3 * hidden),
        take("dense_i/bias", 3 * hidden),
    )
    w_h = take("dense_h/kernel", hidden, 3 * hidden)
    b_n = jnp.zeros(hidden, b.dtype)
    return gru(hidden), GRUParams(*(split(w, 3) for w in (w_x, w_h, b)), b_n)


def _from_simple_cell(module, take, path):
    _check_function(module, "activation_fn", [TANH, RELU], path)
    check(not module.residual, f"{path}residual", "False, as elman has none", module.residual)
    hidden = module.hidden_features
    w_x, b = take("dense_i/kernel", module.in_features, hidden), take("dense_i/bias", hidden)
    activation = "relu" if module.activation_fn in RELU else "tanh"
    params = ElmanParams(w_x, take("dense_h/kernel", hidden, hidden), b)
    return elman(hidden, activation=activation), params


LSTM_CELL = ("ii", "if_", "ig", "io")  # and hi, hf, hg, ho
_CELLS = {
    nnx.LSTMCell: _from_lstm_cell,
    nnx.OptimizedLSTMCell: _from_optimized_lstm_cell,
    nnx.GRUCell: _from_gru_cell,
    nnx.SimpleCell: _from_simple_cell,
}


def to_nnx(layer: Cell | Layer, params: Params, *, optimized: bool = True) -> Any:
    """The NNX module that has these params.

    `RecurrentCell` holds any cell; this is for Flax's own.

    Args:
      layer: an `lstm`, `gru` or `elman`; a `backward` of one or a `bidirectional` of two; or a
        `stack` of such layers.
      params: its params.
      optimized: whether an LSTM is an `OptimizedLSTMCell`, and not an `LSTMCell`.

    Returns:
      A cell for one cell, an `nnx.RNN`, `Bidirectional` or `Sequential` for others, in which a
      stack within a stack is taken apart. Batch comes before time in them, as is Flax's default.

    Raises:
      ValueError: if Flax NNX has no such layer, or a GRU's `b_n` is not zero, as is known only
        where it is not traced: a GRUCell has no such bias.

    Example:
      >>> import jax
      >>> import jaxlstm as jl
      >>> from jaxlstm.interop.nnx import to_nnx
      >>> params = jl.init_lstm(jax.random.key(0), features=3, hidden=8)
      >>> module = to_nnx(jl.lstm(8), params)
      >>> type(module).__name__, module.dense_h.bias.shape
      ('OptimizedLSTMCell', (32,))
    """
    parts = parts_of(layer, params)
    if call_of(layer).factory == "stack":
        return nnx.Sequential(*(_to_layer(part, optimized) for part in parts))
    if isinstance(layer, Layer):
        return _to_layer(parts[0], optimized)
    return _to_cell(*parts[0].cells[0], optimized)


def _to_layer(part, optimized):
    of = [_to_rnn(call, params, optimized) for call, params in part.cells]
    return of[0] if part.combine is None else nnx.Bidirectional(*of, merge_fn=COMBINE[part.combine])


def _to_rnn(call, params, optimized):
    if call.factory == "backward":
        cell = _to_cell(call_of(call.arguments["bare"]), params, optimized)
        return nnx.RNN(cell, reverse=True, keep_order=True)
    return nnx.RNN(_to_cell(call, params, optimized))


def _to_cell(call, params, optimized):
    check_kinds(call, "Flax NNX", KINDS)
    zeros, dtype = nnx.initializers.zeros_init(), params.w_x.dtype
    options = dict(kernel_init=zeros, recurrent_kernel_init=zeros, param_dtype=dtype)
    if call.factory == "lstm":
        make = nnx.OptimizedLSTMCell if optimized else nnx.LSTMCell
        weights = _lstm_weights(params, optimized)
    elif call.factory == "gru":
        none = is_concrete(params.b_n) and not jnp.any(params.b_n)
        expected = "zeros, as GRUCell has no such bias (RecurrentCell holds any GRU)"
        check(none, "params 'b_n'", expected, params.b_n)
        make, (w_x, w_h, b) = nnx.GRUCell, map(join, params[:3])
        weights = {"dense_i": {"kernel": w_x, "bias": b}, "dense_h": {"kernel": w_h}}
    else:
        activation = {"tanh": nnx.tanh, "relu": nnx.relu}[call.arguments["activation"]]
        options |= dict(activation_fn=activation, dtype=dtype)
        make, (w_x, w_h, b) = nnx.SimpleCell, params
        weights = {"dense_i": {"kernel": w_x, "bias": b}, "dense_h": {"kernel": w_h}}
    module = make(params.w_x.shape[0], call.arguments["hidden"], rngs=nnx.Rngs(0), **options)
    state = nnx.state(module)
    nnx.replace_by_pure_dict(state, jax.tree.map(jnp.asarray, weights))
    nnx.update(module, state)
    return module


def _lstm_weights(params, optimized):
    w_x, w_h, b = params[:3]
    if optimized:
        return {"dense_i": {"kernel": join(w_x)}, "dense_h": {"kernel": join(w_h), "bias": join(b)}}
    weights = {}
    for n, name in enumerate(LSTM_CELL):
        weights[name] = {"kernel": w_x[:, n]}
        weights[f"h{name[1]}"] = {"kernel": w_h[:, n], "bias": b[n]}
    return weights
