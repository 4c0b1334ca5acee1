"""Weights of Equinox's `nn.LSTMCell` and `nn.GRUCell`, in and out."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxlstm.base import Cell, Params
from jaxlstm.cells.gru import GRUParams, gru
from jaxlstm.cells.lstm import LSTMParams, lstm
from jaxlstm.checks import check
from jaxlstm.interop.arrays import Entries, join, needed, split
from jaxlstm.interop.calls import call_of, check_kinds, parts_of


def from_equinox(module: Any) -> tuple[Cell, Params]:
    """The cell, and its params, that a cell of Equinox is.

    Equinox's cells take no batch axis and return the states (h, c) in that order; ours take any
    batch axes, and their carry is (c, h).

    Args:
      module: an `eqx.nn.LSTMCell` or `eqx.nn.GRUCell`, with biases or without; its weights may
        be traced.

    Returns:
      The Cell, an `lstm` or a `gru`, and its params, in the dtype of the weights.

    Raises:
      ValueError: if it is another module, or a weight has a shape that does not fit.
      ImportError: if Equinox is not installed.

    Example:
      >>> import equinox as eqx
      >>> import jax
      >>> from jaxlstm.interop import equinox
      >>> cell, params = equinox.from_equinox(eqx.nn.GRUCell(3, 8, key=jax.random.key(0)))
      >>> cell, params.w_x.shape
      (gru(8), (3, 3, 8))
    """
    nn = needed("equinox", "equinox").nn
    expected = "an eqx.nn.LSTMCell or eqx.nn.GRUCell"
    known = type(module) in (nn.LSTMCell, nn.GRUCell)  # of a subclass nobody knows what it does
    check(known, "module", expected, type(module))
    gates = 4 if isinstance(module, nn.LSTMCell) else 3
    features, hidden = module.input_size, module.hidden_size
    shapes: dict[str, tuple[int, ...]] = {"weight_ih": (gates * hidden, features)}
    shapes["weight_hh"] = (gates * hidden, hidden)
    if module.use_bias:
        shapes["bias"] = (gates * hidden,)
        shapes |= {"bias_n": (hidden,)} if gates == 3 else {}
    entries = Entries(type(module).__name__, {name: getattr(module, name) for name in shapes})
    taken = {name: entries.take(name, shape) for name, shape in shapes.items()}
    w_x, w_h = (split(taken[name].T, gates) for name in ("weight_ih", "weight_hh"))
    b = taken.get("bias", jnp.zeros(gates * hidden, w_x.dtype))
    if gates == 4:
        return lstm(hidden), LSTMParams(w_x, w_h, split(b, 4))
    b_n = taken.get("bias_n", jnp.zeros(hidden, w_x.dtype))
    return gru(hidden), GRUParams(w_x, w_h, split(b, 3), b_n)


def to_equinox(cell: Cell, params: Params) -> Any:
    """The cell of Equinox that has these params.

    Args:
      cell: an `lstm` or a `gru`.
      params: its params; they may be traced.

    Returns:
      An `eqx.nn.LSTMCell` or `eqx.nn.GRUCell` with biases, in the dtype of the params.

    Raises:
      ValueError: if Equinox has no such cell (peepholes, a projection, layer normalisation,
        clipping, a stack), or the params are of another.
      ImportError: if Equinox is not installed.

    Example:
      >>> import jax
      >>> import jaxlstm as jl
      >>> from jaxlstm.interop import equinox
      >>> params = jl.init_lstm(jax.random.key(0), features=3, hidden=8)
      >>> equinox.to_equinox(jl.lstm(8), params).weight_ih.shape
      (32, 3)
    """
    eqx = needed("equinox", "equinox")
    check_kinds(call_of(cell), "Equinox", {"lstm": [], "gru": []})
    parts_of(cell, params)  # for its check that they are of one kind
    features, hidden = params.w_x.shape[0], params.w_h.shape[0]
    weights = {"weight_ih": join(params.w_x).T, "weight_hh": join(params.w_h).T}
    weights["bias"] = join(params.b)
    make = eqx.nn.LSTMCell
    if isinstance(params, GRUParams):
        make, weights["bias_n"] = eqx.nn.GRUCell, params.b_n
    blank = eqx.filter_eval_shape(make, features, hidden, key=jax.random.key(0))
    where = lambda module: [getattr(module, name) for name in weights]
    return eqx.tree_at(where, blank, list(weights.values()))
