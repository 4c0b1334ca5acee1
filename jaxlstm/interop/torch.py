"""Weights of PyTorch's `nn.LSTM`, `nn.GRU` and `nn.RNN`, in and out."""

import re
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxlstm.base import Cell, Layer, Params
from jaxlstm.cells.elman import ElmanParams, elman
from jaxlstm.cells.gru import GRUParams, gru
from jaxlstm.cells.lstm import LSTMParams, lstm
from jaxlstm.checks import check
from jaxlstm.combine.bidirectional import BidirectionalParams, bidirectional
from jaxlstm.combine.stack import stack
from jaxlstm.interop.arrays import Entries

GATES = {LSTMParams: 4, GRUParams: 3, ElmanParams: 1}  # i, f, g, o; r, z, n: PyTorch's order too


def from_torch(
    state_dict: Mapping[str, Any], *, nonlinearity: str = "tanh"
) -> tuple[Cell | Layer, Params]:
    """The layer, and its params, that a PyTorch recurrent module is.

    PyTorch adds two biases, of which only the sum counts, but for the candidate of a GRU.

    Args:
      state_dict: of an `nn.LSTM`, `nn.GRU` or `nn.RNN` with any number of layers, both
        directions, a projection, with biases or without: tensors or arrays by name. What kind it
        is follows from the shapes.
      nonlinearity: `"tanh"` or `"relu"`, of an `nn.RNN`; the state dict does not tell.

    Returns:
      A Cell (one layer), or a stack of Cells, or of Layers where both directions are; and its
      params, in the dtype of the tensors. `scan` and `apply` take time first.

    Raises:
      ValueError: if an entry is missing, too many, or of a shape that does not fit.

    Example:
      >>> import numpy as np
      >>> import jaxlstm as jl
      >>> from jaxlstm.interop import torch
      >>> state_dict = {  # of nn.GRU(3, 8)
      ...   "weight_ih_l0": np.ones((24, 3)), "weight_hh_l0": np.ones((24, 8)),
      ...   "bias_ih_l0": np.ones(24), "bias_hh_l0": np.ones(24),
      ... }
      >>> cell, params = torch.from_torch(state_dict)
      >>> cell, params.w_x.shape
      (gru(8), (3, 3, 8))
    """
    entries = Entries("state_dict", state_dict)
    layers, both = _count(entries)
    made = []
    for n in range(layers):
        ahead = _from_layer(entries, f"l{n}", nonlinearity)
        if both:
            back = _from_layer(entries, f"l{n}_reverse", nonlinearity)
            params = BidirectionalParams(ahead[1], back[1])
            made.append((bidirectional(ahead[0], back[0]), params))
        else:
            made.append(ahead)
    entries.finish()
    if layers == 1:
        return made[0]
    return stack(*(layer for layer, _ in made)), tuple(params for _, params in made)


def _count(entries):
    """How many layers there are, and whether both directions."""
    found = [re.fullmatch(r"weight_ih_l(\d+)(_reverse)?", name) for name in entries.arrays]
    numbers = [int(match[1]) for match in found if match]
    check(bool(numbers), "state_dict", "an entry 'weight_ih_l0'", ", ".join(entries.arrays))
    return max(numbers) + 1, any(match and match[2] for match in found)


def _from_layer(entries, suffix, nonlinearity):
    take = lambda name, *shape: entries.take(f"{name}_{suffix}", shape)
    w_x, w_h = take("weight_ih", None, None), take("weight_hh", None, None)
    projected = f"weight_hr_{suffix}" in entries.arrays
    projection = take("weight_hr", w_h.shape[1], None) if projected else None
    hidden = projection.shape[1] if projected else w_h.shape[1]
    gates = len(w_x) // hidden if hidden and len(w_x) % hidden == 0 else 0
    expected = "4, 3 or 1 times the hidden size as rows"
    check(gates in (4, 3, 1), f"state_dict 'weight_ih_{suffix}'", expected, w_x.shape)
    check(gates == 4 or not projected, f"state_dict 'weight_hr_{suffix}'", "an LSTM's alone", gates)
    rows_alike = len(w_h) == len(w_x)
    check(rows_alike, f"state_dict 'weight_hh_{suffix}'", f"{len(w_x)} rows", w_h.shape)
    zeros = np.zeros(len(w_x), w_x.dtype)
    biased = f"bias_ih_{suffix}" in entries.arrays
    b_x, b_h = (take(f"bias_{of}", len(w_x)) if biased else zeros for of in ("ih", "hh"))
    split = lambda w: jnp.asarray(w.T.reshape(w.shape[1], gates, hidden))
    rows = lambda b: jnp.asarray(b.reshape(gates, hidden))
    if gates == 4:
        p = None if projection is None else jnp.asarray(projection.T)
        params = LSTMParams(split(w_x), split(w_h), rows(b_x + b_h), projection=p)
        return lstm(hidden, projection=None if p is None else p.shape[1]), params
    if gates == 3:
        inside = np.concatenate([b_h[: 2 * hidden], zeros[:hidden]])
        params = GRUParams(split(w_x), split(w_h), rows(b_x + inside), rows(b_h)[2])
        return gru(hidden), params
    params = ElmanParams(split(w_x)[:, 0], split(w_h)[:, 0], rows(b_x + b_h)[0])
    return elman(hidden, activation=nonlinearity), params


def to_torch(params: Params) -> dict[str, np.ndarray]:
    """The state dict of the PyTorch module that has these params.

    The bias is `bias_ih`; `bias_hh` is zero but for the candidate of a GRU.

    Args:
      params: of an `lstm` (with or without projection), `gru` or `elman`; of a `bidirectional`
        of two of a kind; or a tuple of those, one for each layer of a stack.

    Returns:
      NumPy arrays by PyTorch's names: `module.load_state_dict({k: torch.tensor(v) ...})`. bfloat16
      is `ml_dtypes.bfloat16`.

    Raises:
      ValueError: if PyTorch has no such layer (peepholes, layer normalisation), or the layers are
        not of one kind.

    Example:
      >>> import jax
      >>> import jaxlstm as jl
      >>> from jaxlstm.interop import torch
      >>> weights = torch.to_torch(jl.init_gru(jax.random.key(0), features=3, hidden=8))
      >>> weights["weight_ih_l0"].shape, sorted(weights)[:2]
      ((24, 3), ['bias_hh_l0', 'bias_ih_l0'])
    """
    layers = params if type(params) is tuple else (params,)
    check(len(layers) > 0, "params", "at least one layer", "none")
    entries: dict[str, np.ndarray] = {}
    kinds = set()
    for n, layer in enumerate(layers):
        both = isinstance(layer, BidirectionalParams)
        parts = zip(layer, ("", "_reverse"), strict=True) if both else [(layer, "")]
        for part, suffix in parts:
            entries |= _to_layer(part, f"l{n}{suffix}")
            kinds.add((type(part), both, getattr(part, "projection", None) is None))
    check(len(kinds) == 1, "params", "layers of one kind", [kind.__name__ for kind, *_ in kinds])
    return entries


def _to_layer(params, suffix):
    known = type(params) in GATES
    expected = f"params of one of {[kind.__name__ for kind in GATES]}"
    check(known, f"params of layer {suffix}", expected, type(params).__name__)
    for name in ("peephole", "norm"):
        absent = getattr(params, name, None) is None
        check(absent, f"params.{name} of layer {suffix}", "None, as PyTorch has none", "one")
    flat = lambda w: np.asarray(w).reshape(w.shape[0], -1).T
    b = np.asarray(params.b).reshape(-1)
    b_h = np.zeros_like(b)
    if isinstance(params, GRUParams):
        b_h = np.concatenate([b_h[: 2 * len(params.b_n)], np.asarray(params.b_n)])
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    arrays = dict(zip(names, (flat(params.w_x), flat(params.w_h), b, b_h), strict=True))
    if getattr(params, "projection", None) is not None:
        arrays["weight_hr"] = np.asarray(params.projection).T
    return {f"{name}_{suffix}": np.ascontiguousarray(a) for name, a in arrays.items()}
