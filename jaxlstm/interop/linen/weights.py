"""Weights of Flax Linen's recurrent modules, in and out."""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxlstm.base import Cell, Layer, Params
from jaxlstm.cells.convlstm import ConvLSTMParams, convlstm
from jaxlstm.cells.elman import ElmanParams, elman
from jaxlstm.cells.gru import GRUParams, gru
from jaxlstm.cells.janet import JANETParams, janet
from jaxlstm.cells.lstm import LSTMParams, lstm
from jaxlstm.checks import check
from jaxlstm.combine.backward import backward
from jaxlstm.combine.bidirectional import BidirectionalParams, bidirectional
from jaxlstm.interop.arrays import Entries, join, split
from jaxlstm.interop.calls import call_of, check_kinds, parts_of

KINDS = {"elman": ["activation"], "janet": ["beta"], "bidirectional": ["combine"]}
KINDS |= {name: [] for name in ("lstm", "gru", "convlstm", "backward")}  # no options as Flax's
ACTIVATIONS = {"tanh": linen.tanh, "relu": linen.relu}
MERGE: dict[str, Any] = {"concatenate": linen.Bidirectional.merge_fn, "sum": jnp.add}
FREE = {  # fields of modules on which their function does not depend, or that are read below
    *("parent", "name", "features", "dtype", "param_dtype", "kernel_init", "bias_init"),
    *("recurrent_kernel_init", "forget_bias_init", "activation_bias_init"),
    *("cell", "forward_rnn", "backward_rnn", "time_major", "return_carry", "unroll", "split_rngs"),
}


def from_linen(module: linen.Module, params: Mapping[str, Any]) -> tuple[Cell | Layer, Params]:
    """The cell or layer, and its params, that one of Flax's recurrent modules is.

    Flax's ConvLSTMCell adds 1 to the forget gate inside the step; here the 1 is in the bias. An
    `nn.RNN` built in a `@compact` method of another module does not own its cell's weights: they
    stand beside it as `"LSTMCell_0"`, and it is the cell that has to be converted with these.

    Args:
      module: an `nn.LSTMCell`, `OptimizedLSTMCell`, `GRUCell`, `SimpleCell` (with tanh or relu),
        `MGUCell` without its reset gate, or `ConvLSTMCell`; an `nn.RNN` of one; or an
        `nn.Bidirectional` of two of these.
      params: its own, `variables["params"]`, or `variables` if there is nothing else in them.
        They may be traced.

    Returns:
      A Cell, of an `nn.RNN` too; `backward` of one for an `nn.RNN` with `reverse` and
      `keep_order`; `bidirectional`. And its params, in the dtype that they have. `scan` and
      `apply` take time first; a carry has the same arrays in the same order, (c, h). (For a
      `RecurrentCell`: `unflatten_params`.)

    Raises:
      ValueError: if there is no such cell here, a field of the module has a value that changes
        its function, or an entry is missing, too many, or of a shape that does not fit.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> from flax import linen as nn
      >>> from jaxlstm.interop.linen import from_linen
      >>> module, xs = nn.RNN(nn.OptimizedLSTMCell(8)), jnp.ones((2, 5, 3))
      >>> variables = module.init(jax.random.key(0), xs)
      >>> cell, params = from_linen(module, variables["params"])
      >>> cell, params.w_x.shape
      (lstm(8), (3, 4, 8))
      >>> jl.scan(cell, params, xs.swapaxes(0, 1))[1].shape
      (5, 2, 8)
    """
    mapping = isinstance(params, Mapping)
    check(mapping, "params", "the mapping that Module.init gives", type(params).__name__)
    params = linen.meta.unbox(params)
    if "params" in params:
        check(len(params) == 1, "params", "no other collections", ", ".join(params))
        params = params["params"]
    entries = Entries("params", flatten_dict(params, sep="/"))
    layer, own = _from_module(module, entries, "")
    entries.finish()
    return layer, own


def _from_module(module, entries, prefix):
    if type(module) is linen.Bidirectional:
        _check_fields(module, "merge_fn")
        merges = [name for name, merge in MERGE.items() if merge == module.merge_fn]
        check(bool(merges), "Bidirectional's merge_fn", "its default or jnp.add", module.merge_fn)
        # It tells both in which direction to run, whatever their own fields say.
        ahead, p = _from_rnn(module.forward_rnn, entries, f"{prefix}forward_rnn/")
        back, q = _from_rnn(module.backward_rnn, entries, f"{prefix}backward_rnn/")
        return bidirectional(ahead, back, combine=merges[0]), BidirectionalParams(p, q)
    if type(module) is not linen.RNN:
        return _from_cell(module, entries, prefix)
    cell, params = _from_rnn(module, entries, prefix)
    if not module.reverse:
        return cell, params
    expected = "True where it has reverse, as backward has its outputs at their own times"
    check(module.keep_order, "RNN's keep_order", expected, module.keep_order)
    return backward(cell), params


def _from_rnn(module, entries, prefix):
    check(type(module) is linen.RNN, "module", "an nn.RNN in each direction", _class(module))
    _check_fields(module, "reverse", "keep_order")
    return _from_cell(module.cell, entries, f"{prefix}cell/")


def _from_cell(module, entries, prefix):
    known = ", ".join(kind.__name__ for kind in (*READ, linen.RNN, linen.Bidirectional))
    check(type(module) in READ, "module", f"one of Flax's {known}", _class(module))
    read, *fields = READ[type(module)]
    _check_fields(module, *fields)
    taken = []

    def take(name, *shape):
        taken.append(entries.take(prefix + name, shape))
        return taken[-1]

    cell, params = read(module, take)
    dtypes = {a.dtype for a in taken}
    dtypes |= {jnp.dtype(module.dtype)} if module.dtype is not None else set()
    expected = "None, and params of one dtype, in which cells here compute"
    name = f"{type(module).__name__}'s dtype"
    check(len(dtypes) == 1, name, expected, ", ".join(sorted(map(str, dtypes))))
    return cell, params


def _class(module):
    return f"{type(module).__module__}.{type(module).__name__}"


def _check_fields(module, *read):
    """Raises ValueError for a field that changes the module's function, and is not read."""
    for field in dataclasses.fields(module):
        if field.name not in FREE | {*read}:
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


READ = {  # what reads a module, and the fields that it reads
    linen.LSTMCell: [_read_lstm],
    linen.OptimizedLSTMCell: [_read_lstm],
    linen.GRUCell: [_read_gru],
    linen.SimpleCell: [_read_elman, "activation_fn"],
    linen.MGUCell: [_read_janet, "reset_gate"],
    linen.ConvLSTMCell: [_read_convlstm, "kernel_size", "strides", "use_bias"],
}


def to_linen(
    layer: Cell | Layer, params: Params, *, optimized: bool = True
) -> tuple[Any, dict[str, Any]]:
    """The Flax module, and its params, that a cell or layer with these params is.

    Args:
      layer: an `lstm`, `gru`, `elman`, `janet` with beta 0 or `convlstm`; `backward` of one; or
        `bidirectional`.
      params: its params. They may be traced.
      optimized: whether an LSTM becomes an `nn.OptimizedLSTMCell`, of one product a side, or an
        `nn.LSTMCell`. The params are the same.

    Returns:
      A cell of Flax's, or an `nn.RNN` of one where it is `backward`, or an `nn.Bidirectional` of
      these, with `param_dtype` that of the params; and its `variables["params"]`. From there back
      again they are bit for bit the same. (A ConvLSTM's forget bias b does not always come back
      from (b - 1) + 1: what rounding takes from it stands in the other one of its two biases.)

    Raises:
      ValueError: if Flax has no such cell (peepholes, projection, layer normalisation, clipping;
        `RecurrentCell` holds any), or the params are not of that layer.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> from flax import linen as nn
      >>> from jaxlstm.interop.linen import to_linen
      >>> params = jl.init_gru(jax.random.key(0), features=3, hidden=8)
      >>> module, weights = to_linen(jl.gru(8), params)
      >>> sorted(weights), weights["hn"]["bias"].shape
      (['hn', 'hr', 'hz', 'in', 'ir', 'iz'], (8,))
      >>> nn.RNN(module).apply({"params": {"cell": weights}}, jnp.ones((2, 5, 3))).shape
      (2, 5, 8)
    """
    call = call_of(layer)
    check_kinds(call, "Flax", KINDS)
    given = call.arguments
    if call.factory == "backward":
        module, weights = to_linen(given["bare"], params, optimized=optimized)
        return linen.RNN(module, reverse=True, keep_order=True), {"cell": weights}
    if call.factory == "bidirectional":
        both = isinstance(params, BidirectionalParams)
        check(both, "params", "BidirectionalParams", type(params).__name__)
        ahead, p = to_linen(given["forward"], params.forward, optimized=optimized)
        back, q = to_linen(given["backward"], params.backward, optimized=optimized)
        rnns = linen.RNN(ahead), linen.RNN(back)
        module = linen.Bidirectional(*rnns, merge_fn=MERGE[given["combine"]])
        return module, {"forward_rnn": {"cell": p}, "backward_rnn": {"cell": q}}
    parts_of(layer, params)  # which holds the params to the cell
    params = jax.tree.map(jnp.asarray, params)
    make, weights = _write(call.factory, params, given, optimized)
    module = make(features=params.w_h.shape[-1], param_dtype=params.w_x.dtype)
    return module, unflatten_dict(weights, sep="/")


def _layers(params, gates, biased):
    """The dense layers of each gate, by name; those of side `biased` have the biases."""
    w = {"i": params.w_x, "h": params.w_h}
    kernels = {f"{s}{g}/kernel": w[s][..., n, :] for s in w for n, g in enumerate(gates)}
    return kernels | {f"{biased}{g}/bias": params.b[..., n, :] for n, g in enumerate(gates)}


def _write(name, params, given, optimized):
    """What makes the module of a cell, and its weights by name."""
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
