"""One cell of Keras 3: what its options must be, and its weights in and out."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlstm.base import Array, Cell, Params
from jaxlstm.cells.convlstm import ConvLSTMParams, convlstm
from jaxlstm.cells.elman import ElmanParams, elman
from jaxlstm.cells.gru import GRUParams, gru
from jaxlstm.cells.gru_reset_before import GRUResetBeforeParams, gru_reset_before
from jaxlstm.cells.lstm import LSTMParams, lstm
from jaxlstm.checks import check
from jaxlstm.interop.arrays import join, needed, split, to_jax
from jaxlstm.interop.calls import Call

KINDS = {"lstm": [], "gru": [], "gru_reset_before": [], "elman": ["activation"], "convlstm": []}
FUNCTIONS = {
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "relu": lambda x: np.maximum(x, 0),
}
PROBE = np.array([[*np.linspace(-8, 8, 30), -80, -30, 30, 80]], np.float32)
BACK = [1, 0, 2]  # from Keras's z, r, n to our r, z, n, and back

Value = Callable[[Any], Any]  # of a Keras variable, its array


def from_cell(cell: Any, value: Value) -> tuple[Cell, Params]:
    """The cell of ours that a built one of `CELLS` is, and its params.

    Raises:
      ValueError: if it has an option that ours has not; it names the cell and the option.
    """
    return CELLS[kind_of(cell)](cell, value)


def kind_of(layer: Any) -> str:
    """The name of a class of Keras, or of another one with its module; `"list"` of a list."""
    kind = type(layer)
    if isinstance(layer, list):
        return "list"
    if kind.__module__.startswith("keras."):
        return kind.__name__
    return f"{kind.__module__}.{kind.__qualname__}"


def _activation(cell, name, expected):
    """Which function of `expected` the cell's activation is, by its values."""
    keras = needed("keras", "keras")
    function = getattr(cell, name)
    if not isinstance(function, keras.Layer):
        with jax.ensure_compile_time_eval():
            values = function(keras.ops.convert_to_tensor(PROBE))
            values = keras.ops.convert_to_numpy(values)
        for known in expected:
            if np.allclose(values, FUNCTIONS[known](PROBE), rtol=1e-5, atol=1e-6):  # of float32
                return known
    got = getattr(function, "__name__", repr(function))
    check(False, f"{cell.name}'s {name}", " or ".join(expected), got)


def _arrays(cell, value, gates):
    """Both kernels and the bias, gates apart, if there are any; zeros where there is no bias."""
    variables = [cell.kernel, cell.recurrent_kernel, *([cell.bias] if cell.use_bias else [])]
    arrays = [to_jax(value(v), v.path) for v in variables]
    if not cell.use_bias:
        twice = (2,) if getattr(cell, "reset_after", False) else ()
        arrays.append(jnp.zeros((*twice, arrays[0].shape[-1]), arrays[0].dtype))
    return [split(a, gates) for a in arrays] if gates > 1 else arrays


def _from_lstm(cell, value):
    _activation(cell, "activation", ["tanh"])
    _activation(cell, "recurrent_activation", ["sigmoid"])
    return lstm(cell.units), LSTMParams(*_arrays(cell, value, 4))


def _from_gru(cell, value):
    _activation(cell, "activation", ["tanh"])
    _activation(cell, "recurrent_activation", ["sigmoid"])
    w_x, w_h, b = (a[..., BACK, :] for a in _arrays(cell, value, 3))
    if not cell.reset_after:
        return gru_reset_before(cell.units), GRUResetBeforeParams(w_x, w_h, b)
    return gru(cell.units), GRUParams(w_x, w_h, b[0].at[:2].add(b[1, :2]), b[1, 2])


def _from_simple(cell, value):
    activation = _activation(cell, "activation", ["tanh", "relu"])
    return elman(cell.units, activation=activation), ElmanParams(*_arrays(cell, value, 1))


def _from_convlstm(cell, value):
    _activation(cell, "activation", ["tanh"])
    _activation(cell, "recurrent_activation", ["sigmoid"])
    ones = (1,) * cell.rank
    needs = dict(padding="same", data_format="channels_last", strides=ones, dilation_rate=ones)
    for name, expected in needs.items():
        got = getattr(cell, name)
        check(got == expected, f"{cell.name}'s {name}", repr(expected), repr(got))
    kernel = tuple(cell.kernel_size)
    return convlstm(cell.filters, kernel), ConvLSTMParams(*_arrays(cell, value, 4))


CELLS = {
    "LSTMCell": _from_lstm,
    "GRUCell": _from_gru,
    "SimpleRNNCell": _from_simple,
    "ConvLSTMCell": _from_convlstm,
}


def layer_of(call: Call) -> tuple[str, dict[str, Any]]:
    """The Keras class of the cell's layer, and its options."""
    a = call.arguments
    if call.factory == "lstm":
        return "LSTM", dict(units=a["hidden"])
    if call.factory == "elman":
        return "SimpleRNN", dict(units=a["hidden"], activation=a["activation"])
    if call.factory == "convlstm":
        kernel = dict(kernel_size=a["kernel"], padding="same", data_format="channels_last")
        return f"ConvLSTM{len(a['kernel'])}D", dict(filters=a["channels"], **kernel)
    return "GRU", dict(units=a["hidden"], reset_after=call.factory == "gru")


def weights_of(factory: str, params: Params) -> list[Array]:
    """Kernel, recurrent kernel and bias in Keras's order of gates."""
    if factory == "elman":
        return list(params)
    if factory in ("lstm", "convlstm"):
        return [join(a) for a in params[:3]]
    arrays = list(params[:3])
    if factory == "gru":
        arrays[2] = jnp.stack([params.b, jnp.zeros_like(params.b).at[2].set(params.b_n)])
    return [join(a[..., BACK, :]) for a in arrays]
