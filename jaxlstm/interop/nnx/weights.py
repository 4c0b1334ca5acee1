"""Weights of Flax NNX's recurrent modules, in and out."""

from typing import Any

import jax.numpy as jnp
from flax import nnx

from jaxlstm.base import Cell, Layer, Params
from jaxlstm.checks import check
from jaxlstm.combine.backward import backward
from jaxlstm.combine.bidirectional import BidirectionalParams, bidirectional
from jaxlstm.combine.stack import stack
from jaxlstm.interop.calls import call_of, parts_of
from jaxlstm.interop.nnx.cells import CELLS, from_cell, is_cell, to_cell
from jaxlstm.interop.nnx.rnn import RNN

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
        order; an `nnx.Bidirectional` of two of these; or an `nnx.Sequential` of them all, from
        which `nnx.Dropout` is left out, as it counts in training alone.

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
    if is_cell(module):
        return from_cell(module, path)
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
    expected = f"one of {', '.join(CELLS)}, RNN, Bidirectional or Sequential"
    check(kind is nnx.Sequential, f"{path}module", expected, kind.__name__)
    kept = [(n, m) for n, m in enumerate(module.layers) if type(m) is not nnx.Dropout]
    check(bool(kept), f"{path}layers", "at least one RNN or Bidirectional", "none")
    layers = [_in_sequence(layer, f"{path}layers/{n}/") for n, layer in kept]
    majors = {layer.time_major for _, layer in kept}
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
    return to_cell(*parts[0].cells[0], optimized)


def _to_layer(part, optimized):
    of = [_to_rnn(call, params, optimized) for call, params in part.cells]
    return of[0] if part.combine is None else nnx.Bidirectional(*of, merge_fn=COMBINE[part.combine])


def _to_rnn(call, params, optimized):
    if call.factory == "backward":
        cell = to_cell(call_of(call.arguments["bare"]), params, optimized)
        return nnx.RNN(cell, reverse=True, keep_order=True)
    return nnx.RNN(to_cell(call, params, optimized))
