"""Flax Linen's own cells: their options, and their weights in and out."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen
from flax.traverse_util import unflatten_dict

from jaxlstm.base import Cell, Params
from jaxlstm.cells.convlstm import ConvLSTMParams, convlstm
from jaxlstm.cells.elman import ElmanParams, elman
from jaxlstm.cells.gru import GRUParams, gru
from jaxlstm.cells.janet import JANETParams, janet
from jaxlstm.cells.lstm import LSTMParams, lstm
from jaxlstm.checks import check
from jaxlstm.interop.arrays import Entries, join, split
from jaxlstm.interop.calls import Call, check_kinds

KINDS = {"elman": ["activation"], "janet": ["beta"]}
KINDS |= {name: [] for name in ("lstm", "gru", "convlstm")}  # which have no options, as Flax's
ACTIVATIONS = {"tanh": linen.tanh, "relu": linen.relu}
FREE = {  # fields of modules on which their function does not depend, or that are read below
    *("parent", "name", "features", "dtype", "param_dtype", "kernel_init", "bias_init"),
    *("recurrent_kernel_init", "forget_bias_init", "activation_bias_init"),
}


def from_cell(module: linen.Module, entries: Entries, path: str) -> tuple[Cell, Params]:
    """The cell, and its params, that one of Flax's cells is.

    Raises:
      ValueError: as `from_linen`; `path` is where its entries stand, `"forward_rnn/cell/"`.
    """
    check(is_cell(module), "module", f"one of Flax's {', '.join(CELLS)}", class_of(module))
    read, *fields = _READ[type(module)]
    check_fields(module, FREE | {*fields})
    taken = []

    def take(name, *shape):
        taken.append(entries.take(path + name, shape))
        return taken[-1]

    cell, params = read(module, take)
    dtypes = {a.dtype for a in taken}
    dtypes |= {jnp.dtype(module.dtype)} if module.dtype is not None else set()
    expected = "None, and params of one dtype, in which cells here compute"
    name = f"{type(module).__name__}'s dtype"
    check(len(dtypes) == 1, name, expected, ", ".join(sorted(map(str, dtypes))))
    return cell, params


def is_cell(module: Any) -> bool:
    """Whether `from_cell` knows such a cell; of a subclass nobody knows what it does."""
    return type(module) in _READ


def class_of(module: Any) -> str:
    """The full name of its class."""
    return f"{type(module).__module__}.{type(module).__name__}"


def check_fields(module: linen.Module, read: set[str]) -> None:
    """Raises ValueError for a field that changes the module's function, and is not read."""
    for field in dataclasses.fields(module):
        if field.name not in read:
            value, name = getattr(module, field.name), f"{type(module).__name__}'s {field.name}"
            expected = f"its default {field.default!r}, as cells here have no other"
            check(value == field.default, name, expected, repr(value))


def _kernels(module, take, side, gates, rows):
    """Those of the dense layers of each gate, side by side: (rows, G, H)."""
    kernels = []
    for gate in gates:
        kernels.append(take(f"{side}{gate}/kernel", rows, module.features))
        rows = len(kernels[-1])
    return jnp.stack(kernels, -2)


def _dense(module, take, gates, biased):
    w_x = _kernels(module, take, "i", gates, None)
    w_h = _kernels(module, take, "h", gates, module.features)
    return w_x, w_h, jnp.stack([take(f"{biased}{g}/bias", module.features) for g in gates], -2)


def _read_lstm(module, take):
    return lstm(module.features), LSTMParams(*_dense(module, take, "ifgo", "h"))


def _read_gru(module, take):
    w_x, w_h, b = _dense(module, take, "rzn", "i")
    return gru(module.features), GRUParams(w_x, w_h, b, take("hn/bias", module.features))


def _read_elman(module, take):
    names = [name for name, f in ACTIVATIONS.items() if f == module.activation_fn]
    check(bool(names), "SimpleCell's activation_fn", "tanh or relu", module.activation_fn)
    w_x, w_h, b = _dense(module, take, [""], "i")
    cell = elman(module.features, activation=names[0])
    return cell, ElmanParams(w_x[:, 0], w_h[:, 0], b[0])


def _read_janet(module, take):
    because = "False (with it f comes after the product, and 1 - f where the paper's MGU has f)"
    check(not module.reset_gate, "MGUCell's reset_gate", because, module.reset_gate)
    return janet(module.features, beta=0.0), JANETParams(*_dense(module, take, "fn", "i"))


def _read_convlstm(module, take):
    unit = {*jax.tree.leaves(module.strides)} <= {1}
    check(unit, "ConvLSTMCell's strides", "None or ones", module.strides)
    kernel, size = tuple(module.kernel_size), module.features
    x, h = (
        _gates(split(take(f"{name}/kernel", *kernel, rows, 4 * size), 4))
        for name, rows in (("ih", None), ("hh", size))
    )
    zeros = jnp.zeros(4 * size, x.dtype)
    take_bias = lambda name: take(name, 4 * size) if module.use_bias else zeros
    b_x, b_h = (_gates(split(take_bias(f"{name}/bias"), 4)) for name in ("ih", "hh"))
    b_x = jax.lax.optimization_barrier(b_x.at[1].add(1))  # first, for to_linen's bits
    return convlstm(size, kernel), ConvLSTMParams(x, h, b_x + b_h)


def _gates(w):
    """From i, g, f, o, as ConvLSTMCell has them, to i, f, g, o, and back."""
    return w[..., jnp.array([0, 2, 1, 3]), :]


_READ: dict[Any, Any] = {  # what reads a module, and the fields that it reads
    linen.LSTMCell: [_read_lstm],
    linen.OptimizedLSTMCell: [_read_lstm],
    linen.GRUCell: [_read_gru],
    linen.SimpleCell: [_read_elman, "activation_fn"],
    linen.MGUCell: [_read_janet, "reset_gate"],
    linen.ConvLSTMCell: [_read_convlstm, "kernel_size", "strides", "use_bias"],
}
CELLS = [kind.__name__ for kind in _READ]


def to_cell(call: Call, params: Params, optimized: bool) -> tuple[Any, dict[str, Any]]:
    """The cell of Flax's that has these params, and its weights; ValueError as `to_linen`."""
    check_kinds(call, "Flax", KINDS)
    params = jax.tree.map(jnp.asarray, params)
    make, weights = _write(call, params, optimized)
    module = make(features=params.w_h.shape[-1], param_dtype=params.w_x.dtype)
    return module, unflatten_dict(weights, sep="/")


def _layers(params, gates, biased):
    """The dense layers of each gate, by name; those of side `biased` have the biases."""
    w = {"i": params.w_x, "h": params.w_h}
    kernels = {f"{s}{g}/kernel": w[s][..., n, :] for s in w for n, g in enumerate(gates)}
    return kernels | {f"{biased}{g}/bias": params.b[..., n, :] for n, g in enumerate(gates)}


def _write(call, params, optimized):
    """What makes the module of a cell, and its weights by name."""
    name, given = call
    if name == "lstm":
        kind = linen.OptimizedLSTMCell if optimized else linen.LSTMCell
        return kind, _layers(params, "ifgo", "h")
    if name == "gru":
        return linen.GRUCell, _layers(params, "rzn", "i") | {"hn/bias": params.b_n}
    if name == "elman":
        make = partial(linen.SimpleCell, activation_fn=ACTIVATIONS[given["activation"]])
        return make, _layers(jax.tree.map(lambda a: a[..., None, :], params), [""], "i")
    if name == "janet":
        expected = "0, as Flax's MGUCell(reset_gate=False) has it"
        check(given["beta"] == 0, "janet's beta", expected, given["beta"])
        return partial(linen.MGUCell, reset_gate=False), _layers(params, "fn", "i")
    b = params.b[1]
    less = jax.lax.optimization_barrier(b - 1)  # rounded, but not so less + 1, even under jit
    b_x, b_h = params.b.at[1].set(less), jnp.zeros_like(params.b).at[1].set(b - (less + 1))
    weights = {"ih/kernel": params.w_x, "ih/bias": b_x, "hh/kernel": params.w_h, "hh/bias": b_h}
    make = partial(linen.ConvLSTMCell, kernel_size=given["kernel"])
    return make, {name: join(_gates(a)) for name, a in weights.items()}
