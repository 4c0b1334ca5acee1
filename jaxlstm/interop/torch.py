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
from jaxlstm.interop.arrays import Entries, join, split, to_numpy
from jaxlstm.interop.calls import check_kinds, parts_of

CLASSES = ["LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell"]
MODULES = [f"torch.nn.modules.rnn.{name}" for name in CLASSES]
KINDS = {"lstm": ["projection"], "gru": [], "elman": ["activation"]}  # i, f, g, o; r, z, n


def from_torch(
    source: Any, *, prefix: str = "", nonlinearity: str | None = None
) -> tuple[Cell | Layer, Params]:
    """The layer, and its params, that a PyTorch recurrent module is.

    PyTorch adds two biases, of which only the sum counts, but for the candidate of a GRU.

    Args:
      source: an `nn.LSTM`, `nn.GRU` or `nn.RNN` with any number of layers, both directions, a
        projection, with biases or without; an `nn.LSTMCell`, `nn.GRUCell` or `nn.RNNCell`; or the
        state dict of one, tensors or arrays by name, of which the kind follows from the shapes.
        Dropout, which is for training, is left out.
      prefix: what the names of a whole model's state dict begin with for this module, as
        `"encoder.rnn."`; entries of other names are left alone.
      nonlinearity: `"tanh"` or `"relu"` of an RNN's state dict, which does not tell; None for
        that of the module, or `"tanh"`.

    Returns:
      A Cell (one layer), or a stack of Cells, or of Layers where both directions are; and its
      params, in the dtype of the tensors. `scan` and `apply` take time first.

    Raises:
      ValueError: if an entry is missing, too many, of a shape that does not fit, or float64 where
        JAX has only float32; or the module is another one, a subclass too.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxlstm as jl
      >>> from jaxlstm.interop import torch
      >>> state_dict = {  # of nn.GRU(3, 8)
      ...   "weight_ih_l0": jnp.ones((24, 3)), "weight_hh_l0": jnp.ones((24, 8)),
      ...   "bias_ih_l0": jnp.ones(24), "bias_hh_l0": jnp.ones(24),
      ... }
      >>> cell, params = torch.from_torch(state_dict)
      >>> cell, params.w_x.shape
      (gru(8), (3, 3, 8))
    """
    if hasattr(source, "state_dict"):
        kind = f"{type(source).__module__}.{type(source).__name__}"
        expected = f"one of {', '.join(MODULES)} or a state dict"
        check(kind in MODULES, "source", expected, kind)
        own = getattr(source, "nonlinearity", None)
        check(nonlinearity in (None, own), "nonlinearity", f"None or {own!r}", repr(nonlinearity))
        source, nonlinearity = source.state_dict(), own
    if isinstance(source, Mapping):
        begins = lambda name: str(name).startswith(prefix)
        source = {name[len(prefix) :]: a for name, a in source.items() if begins(name)}
    entries = Entries("state_dict", source)
    if "weight_ih" in entries:  # of one step, an nn.LSTMCell
        made = [_from_layer(entries, "", None, nonlinearity)]
    else:
        made = _from_layers(entries, nonlinearity)
    entries.finish()
    if len(made) == 1:
        return made[0]
    return stack(*(layer for layer, _ in made)), tuple(params for _, params in made)


def _from_layers(entries, nonlinearity):
    found = [re.fullmatch(r"weight_ih_l(\d+)(_reverse)?", name) for name in entries.arrays]
    numbers = [int(match[1]) for match in found if match]
    prefixes = [name.partition("weight_ih")[0] for name in entries.arrays if "weight_ih" in name]
    prefixes = sorted({*prefixes} - {""})
    hint = f" (prefix=... takes those of one module; there are {', '.join(prefixes)})"
    hint = hint if prefixes else ""
    names = ", ".join(entries.arrays) or "none"
    check(bool(numbers), "state_dict", f"an entry 'weight_ih_l0'{hint}", names)
    ways = ["", "_reverse"] if any(match and match[2] for match in found) else [""]
    made, features = [], None
    for n in range(max(numbers) + 1):
        of = [_from_layer(entries, f"_l{n}{way}", features, nonlinearity) for way in ways]
        features = len(of) * of[0][1].w_h.shape[0]
        if len(of) == 1:
            made += of
        else:
            (ahead, ahead_params), (back, back_params) = of
            params = BidirectionalParams(ahead_params, back_params)
            made.append((bidirectional(ahead, back), params))
    return made


def _from_layer(entries, suffix, features, nonlinearity):
    take = lambda name, *shape: entries.take(name + suffix, shape)
    w_x, w_h = take("weight_ih", None, features), take("weight_hh", None, None)
    projected = f"weight_hr{suffix}" in entries
    projection = take("weight_hr", w_h.shape[1], None) if projected else None
    hidden = w_h.shape[1] if projection is None else projection.shape[1]
    gates = len(w_x) // hidden if hidden and len(w_x) % hidden == 0 else 0
    expected = "4, 3 or 1 times the hidden size as rows"
    check(gates in (4, 3, 1), f"state_dict 'weight_ih{suffix}'", expected, w_x.shape)
    check(gates == 4 or not projected, f"state_dict 'weight_hr{suffix}'", "an LSTM's alone", gates)
    rows_alike = len(w_h) == len(w_x)
    check(rows_alike, f"state_dict 'weight_hh{suffix}'", f"{len(w_x)} rows", w_h.shape)
    zeros = jnp.zeros(len(w_x), w_x.dtype)
    biased = f"bias_ih{suffix}" in entries
    biases = [take(f"bias_{of}", len(w_x)) if biased else zeros for of in ("ih", "hh")]
    w_x, w_h, b_x, b_h = (split(a, gates) for a in (w_x.T, w_h.T, *biases))
    plain = gates == 1 or nonlinearity is None
    check(plain, "nonlinearity", "None, as only an nn.RNN has a choice", repr(nonlinearity))
    if gates == 4:
        p = None if projection is None else projection.T
        params = LSTMParams(w_x, w_h, b_x + b_h, projection=p)
        return lstm(hidden, projection=None if p is None else p.shape[1]), params
    if gates == 3:
        return gru(hidden), GRUParams(w_x, w_h, b_x.at[:2].add(b_h[:2]), b_h[2])
    params = ElmanParams(w_x[:, 0], w_h[:, 0], (b_x + b_h)[0])
    return elman(hidden, activation=nonlinearity or "tanh"), params


def to_torch(
    layer: Cell | Layer, params: Params, *, bias: bool = True, cell: bool = False
) -> dict[str, np.ndarray]:
    """The state dict of the PyTorch module that has these params.

    The bias is `bias_ih`; `bias_hh` is zero but for the candidate of a GRU.

    Args:
      layer: an `lstm` (with or without projection), `gru` or `elman`, a `bidirectional` of two of
        a kind, or a `stack` of such layers.
      params: its params.
      bias: whether the module has biases; False needs params whose biases are zero.
      cell: whether it is of one step, an `nn.LSTMCell`, `nn.GRUCell` or `nn.RNNCell`.

    Returns:
      NumPy arrays by PyTorch's names: `module.load_state_dict({k: torch.tensor(v) ...})`. bfloat16
      is `ml_dtypes.bfloat16`: `torch.tensor(v.astype("float32"))`, which the module makes its own.

    Raises:
      ValueError: if PyTorch has no such layer (peepholes, layer normalisation, clipping, a sum of
        both directions), the layers are not of one kind, or the params are traced.

    Example:
      >>> import jax
      >>> import jaxlstm as jl
      >>> from jaxlstm.interop import torch
      >>> params = jl.init_gru(jax.random.key(0), features=3, hidden=8)
      >>> weights = torch.to_torch(jl.gru(8), params)
      >>> weights["weight_ih_l0"].shape, sorted(weights)[:2]
      ((24, 3), ['bias_hh_l0', 'bias_ih_l0'])
    """
    entries: dict[str, np.ndarray] = {}
    kinds = set()
    parts = parts_of(layer, params)
    for n, part in enumerate(parts):
        combined = part.combine in (None, "concatenate")
        check(combined, "layer", "outputs side by side, as PyTorch has them", part.combine)
        for (call, own), way in zip(part.cells, ("", "_reverse"), strict=False):
            check_kinds(call, "PyTorch", KINDS)
            entries |= _to_layer(to_numpy(own), "" if cell else f"_l{n}{way}")
            kinds.add((call.factory, *call.arguments.items(), len(part.cells)))
    check(len(kinds) == 1, "layer", "layers of one kind and size, as PyTorch has them", layer)
    one = len(parts) == len(parts[0].cells) == 1 and not any("weight_hr" in n for n in entries)
    check(one or not cell, "layer", "one cell without a projection, as cell is True", layer)
    if not bias:
        biases = [name for name in entries if name.startswith("bias")]
        zero = not any(entries.pop(name).any() for name in biases)
        check(zero, "bias", "True, as the biases are not zero", bias)
    return entries


def _to_layer(params, suffix):
    b, b_h = params.b, np.zeros_like(params.b)
    if isinstance(params, GRUParams):
        b_h[2] = params.b_n
    arrays = {"weight_ih": params.w_x, "weight_hh": params.w_h, "bias_ih": b, "bias_hh": b_h}
    if not isinstance(params, ElmanParams):
        arrays = {name: join(a) for name, a in arrays.items()}
    if getattr(params, "projection", None) is not None:
        arrays["weight_hr"] = params.projection
    return {name + suffix: np.ascontiguousarray(a.T) for name, a in arrays.items()}
