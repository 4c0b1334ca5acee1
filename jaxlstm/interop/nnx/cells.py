"""Flax NNX's own cells: their options, and their weights in and out."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxlstm.base import Cell, Params
from jaxlstm.cells.elman import ElmanParams, elman
from jaxlstm.cells.gru import GRUParams, gru
from jaxlstm.cells.lstm import LSTMParams, lstm
from jaxlstm.checks import check, is_concrete
from jaxlstm.interop.arrays import Entries, join, split
from jaxlstm.interop.calls import Call, check_kinds
from jaxlstm.interop.nnx.modules import RecurrentCell

KINDS = {"lstm": [], "gru": [], "elman": ["activation"]}  # i, f, g, o; r, z, n
SIGMOID, TANH, RELU = (nnx.sigmoid, jax.nn.sigmoid), (nnx.tanh, jnp.tanh), (nnx.relu, jax.nn.relu)


def from_cell(module: Any, path: str) -> tuple[Cell, Params]:
    """The cell, and its params, that a cell of NNX is, or a `RecurrentCell` holds.

    Raises:
      ValueError: as `from_nnx`; `path` is where the cell stands, `"forward_rnn/cell/"`.
    """
    if type(module) is RecurrentCell:
        _check_dtype(module, jax.tree.leaves(module.params), path)
        return module.cell, module.params
    expected = f"one of {', '.join(CELLS)}"
    check(is_cell(module), f"{path}module", expected, type(module).__name__)
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


def is_cell(module: Any) -> bool:
    """Whether `from_cell` knows such a cell; of a subclass nobody knows what it does."""
    return type(module) in (*_CELLS, RecurrentCell)


LSTM_CELL = ("ii", "if_", "ig", "io")  # and hi, hf, hg, ho
_CELLS: dict[Any, Any] = {
    nnx.LSTMCell: _from_lstm_cell,
    nnx.OptimizedLSTMCell: _from_optimized_lstm_cell,
    nnx.GRUCell: _from_gru_cell,
    nnx.SimpleCell: _from_simple_cell,
}
CELLS = [kind.__name__ for kind in (*_CELLS, RecurrentCell)]


def to_cell(call: Call, params: Params, optimized: bool) -> Any:
    """The cell of NNX that has these params; ValueError as `to_nnx`."""
    check_kinds(call, "Flax NNX", KINDS)
    zeros, dtype = nnx.initializers.zeros_init(), params.w_x.dtype
    options = dict(kernel_init=zeros, recurrent_kernel_init=zeros, param_dtype=dtype)
    if call.factory == "lstm":
        make: Any = nnx.OptimizedLSTMCell if optimized else nnx.LSTMCell
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
