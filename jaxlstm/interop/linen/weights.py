"""Weights of Flax Linen's recurrent modules, in and out."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen
from flax.traverse_util import flatten_dict

from jaxlstm.base import Cell, Layer, Params
from jaxlstm.checks import check
from jaxlstm.combine.backward import backward
from jaxlstm.combine.bidirectional import BidirectionalParams, bidirectional
from jaxlstm.combine.stack import stack
from jaxlstm.interop.arrays import Entries
from jaxlstm.interop.calls import call_of, parts_of
from jaxlstm.interop.flax_scan import params_like
from jaxlstm.interop.linen.cells import CELLS, check_fields, class_of, from_cell, is_cell, to_cell
from jaxlstm.interop.linen.modules import RecurrentCell, to_variables
from jaxlstm.interop.linen.rnn import RNN

MERGE: dict[str, Any] = {"concatenate": linen.Bidirectional.merge_fn, "sum": jnp.add}
RNNS = (linen.RNN, RNN)
FREE = {  # fields of modules on which their function does not depend, or that are read below
    *("parent", "name", "cell", "forward_rnn", "backward_rnn", "merge_fn", "reverse"),
    *("keep_order", "time_major", "return_carry", "unroll", "split_rngs"),
}


def from_linen(module: linen.Module, params: Mapping[str, Any]) -> tuple[Cell | Layer, Params]:
    """The cell or layer, and its params, that one of Flax's recurrent modules is.

    Flax's ConvLSTMCell adds 1 to the forget gate inside the step; here the 1 is in the bias. An
    `nn.RNN` built in a `@compact` method of another module does not own its cell's weights: they
    stand beside it as `"LSTMCell_0"`, and it is the cell that has to be converted with these.

    Args:
      module: an `nn.LSTMCell`, `OptimizedLSTMCell`, `GRUCell`, `SimpleCell` (with tanh or relu),
        `MGUCell` without its reset gate, `ConvLSTMCell`, or our `RecurrentCell`; an `nn.RNN` or
        our `RNN` of one; an `nn.Bidirectional` of two of these; or an `nn.Sequential` of them,
        from which `nn.Dropout` is left out, as it counts in training alone.
      params: its own, `variables["params"]`, or `variables` if there is nothing else in them.
        They may be traced.

    Returns:
      A Cell, of an `nn.RNN` too; `backward` of one for an `nn.RNN` with `reverse` and
      `keep_order`; `bidirectional`; `stack`. And its params, in the dtype that they have. `scan`
      and `apply` take time first; a carry has the same arrays in the same order, (c, h).

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


def _from_module(module, entries, path):
    if type(module) is linen.Sequential:
        return _from_sequential(module, entries, path)
    if type(module) is linen.Bidirectional:
        check_fields(module, FREE)
        merges = [name for name, merge in MERGE.items() if merge == module.merge_fn]
        check(bool(merges), "Bidirectional's merge_fn", "its default or jnp.add", module.merge_fn)
        # It tells both in which direction to run, whatever their own fields say.
        ahead, p = _from_rnn(module.forward_rnn, entries, f"{path}forward_rnn/")
        back, q = _from_rnn(module.backward_rnn, entries, f"{path}backward_rnn/")
        return bidirectional(ahead, back, combine=merges[0]), BidirectionalParams(p, q)
    if type(module) not in RNNS:
        return _from_cell(module, entries, path)
    cell, params = _from_rnn(module, entries, path)
    if not module.reverse:
        return cell, params
    expected = "True where it has reverse, as backward has its outputs at their own times"
    check(module.keep_order, "RNN's keep_order", expected, module.keep_order)
    return backward(cell), params


def _from_sequential(module, entries, path):
    kept = [(n, m) for n, m in enumerate(module.layers) if type(m) is not linen.Dropout]
    check(bool(kept), "Sequential's layers", "at least one RNN or Bidirectional", "none")
    for n, layer in kept:
        known = type(layer) in (*RNNS, linen.Bidirectional)
        check(known, f"layers_{n}", "an RNN, Bidirectional or Dropout", class_of(layer))
    majors = {layer.time_major for _, layer in kept}
    check(len(majors) == 1, "Sequential's time_major", "the same in all layers", majors)
    made = [_from_module(layer, entries, f"{path}layers_{n}/") for n, layer in kept]
    return stack(*(layer for layer, _ in made)), tuple(params for _, params in made)


def _from_rnn(module, entries, path):
    check(type(module) in RNNS, "module", "an RNN in each direction", class_of(module))
    check_fields(module, FREE)
    return _from_cell(module.cell, entries, f"{path}cell/")


def _from_cell(module, entries, path):
    if type(module) is RecurrentCell:
        return _from_held(module, entries, path)
    known = f"one of Flax's {', '.join(CELLS)}, RNN, Bidirectional, Sequential or a RecurrentCell"
    check(is_cell(module), "module", known, class_of(module))
    return from_cell(module, entries, path)


def _from_held(module, entries, path):
    """Of the sizes that the arrays have, one is that of the inputs: the one with which all fit."""
    cell, axes = module.cell, module.num_feature_axes
    own = {name: a for name, a in entries.arrays.items() if name.startswith(path)}
    shapes = lambda arrays: {name: tuple(jnp.shape(a)) for name, a in arrays.items()}
    for size in sorted({n for shape in shapes(own).values() for n in shape}):
        x = jax.ShapeDtypeStruct((*(1,) * (axes - 1), size), jnp.float32)
        try:
            like = params_like(cell, x)
        except (TypeError, ValueError):  # not with inputs of every size
            continue
        named = flatten_dict(to_variables(like), sep="/")
        named = {path + name: a for name, a in named.items()}
        if shapes(named) == shapes(own):
            leaves = [entries.take(name, a.shape) for name, a in named.items()]
            dtypes = ({module.dtype} - {None}) | {a.dtype for a in leaves}
            expected = "None, or that of all params, in which cells here compute"
            fits = module.dtype is None or {*map(jnp.dtype, dtypes)} == {jnp.dtype(module.dtype)}
            check(fits, "RecurrentCell's dtype", expected, module.dtype)
            return cell, jax.tree.unflatten(jax.tree.structure(like), leaves)
    expected = f"those of {cell}, for inputs of some size (from_variables says what does not fit)"
    raise ValueError(f"params: expected {expected}, got {shapes(own)}")


def to_linen(
    layer: Cell | Layer, params: Params, *, optimized: bool = True
) -> tuple[Any, dict[str, Any]]:
    """The Flax module, and its params, that a cell or layer with these params is.

    Args:
      layer: an `lstm`, `gru`, `elman`, `janet` with beta 0 or `convlstm`; `backward` of one;
        `bidirectional` of two; or a `stack` of such layers.
      params: its params. They may be traced.
      optimized: whether an LSTM becomes an `nn.OptimizedLSTMCell`, of one product a side, or an
        `nn.LSTMCell`. The params are the same.

    Returns:
      A cell of Flax's, or an `nn.RNN` of one where it is `backward`, an `nn.Bidirectional` of
      these, or an `nn.Sequential` (a stack within a stack is taken apart), with `param_dtype`
      that of the params; and its `variables["params"]`. From there back again they are bit for
      bit the same. (A ConvLSTM's forget bias b does not always come back from (b - 1) + 1: what
      rounding takes from it stands in the other one of its two biases.)

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
    if call.factory == "backward":
        parts_of(call.arguments["bare"], params)  # which holds the params to the cell
        return _to_rnn(call, params, optimized)
    parts = parts_of(layer, params)
    if call.factory == "stack":
        made = [_to_layer(part, optimized) for part in parts]
        weights = {f"layers_{n}": own for n, (_, own) in enumerate(made)}
        return linen.Sequential([module for module, _ in made]), weights
    if call.factory == "bidirectional":
        return _to_layer(parts[0], optimized)
    return to_cell(*parts[0].cells[0], optimized)


def _to_layer(part, optimized):
    rnns, weights = zip(*(_to_rnn(*of, optimized) for of in part.cells), strict=True)
    if part.combine is None:
        return rnns[0], weights[0]
    names = "forward_rnn", "backward_rnn"
    module = linen.Bidirectional(*rnns, merge_fn=MERGE[part.combine])
    return module, dict(zip(names, weights, strict=True))


def _to_rnn(call, params, optimized):
    back = call.factory == "backward"
    cell, weights = to_cell(call_of(call.arguments["bare"]) if back else call, params, optimized)
    options = dict(reverse=True, keep_order=True) if back else {}
    return linen.RNN(cell, **options), {"cell": weights}
