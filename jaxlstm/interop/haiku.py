"""Weights of Haiku's cores, in and out: arrays by name, for which Haiku itself isn't needed."""

import collections
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxlstm.base import Array, Cell, Layer, Params
from jaxlstm.cells.convlstm import ConvLSTMParams, convlstm
from jaxlstm.cells.elman import ElmanParams, elman
from jaxlstm.cells.gru_reset_before import GRUResetBeforeParams, gru_reset_before
from jaxlstm.cells.lstm import LSTMParams, lstm
from jaxlstm.checks import check
from jaxlstm.combine.stack import stack
from jaxlstm.interop.arrays import Entries, join, split
from jaxlstm.interop.calls import Call, check_kinds, parts_of

KINDS = {"lstm": [], "gru_reset_before": [], "elman": ["activation"], "convlstm": []}


def from_haiku(
    params: Mapping[str, Mapping[str, Any]], *, name: str | tuple[str, ...] | None = None
) -> tuple[Cell, Params]:
    """The cell, and its params, that a core of Haiku is.

    Haiku adds 1 to the forget gate in each step; here it is added to the bias b, which is exact
    at 0 and from -2 to -1/2, and else rounded as b + 1 is. Of a GRU the update gate, which is the
    other way round, turns its sign: σ(-a) = 1 - σ(a). Of two biases only the sum counts.

    Args:
      params: as `hk.transform` gives them, arrays by name by path of module, of `hk.LSTM`,
        `hk.GRU`, `hk.VanillaRNN`, `hk.Conv1DLSTM`, `hk.Conv2DLSTM` or `hk.Conv3DLSTM`; which
        follows from the names. Arrays may be traced.
      name: the path of a core, `"my_model/~/lstm"`, if the params are of more than that; or the
        paths of several, the first layer first: an `hk.DeepRNN` of cores has no name in the
        params, and what stands between the cores doesn't show. None for the only core there is.

    Returns:
      The Cell, or for several paths a stack, and its params, in the dtype of the arrays.

    Raises:
      ValueError: if an entry is missing, too many, or of a shape that does not fit, or there is
        no such core.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlstm.interop import haiku
      >>> weights = {"lstm/linear": {"w": jnp.ones((3 + 8, 32)), "b": jnp.zeros(32)}}
      >>> cell, params = haiku.from_haiku(weights)
      >>> cell, params.w_x.shape, float(params.b[1, 0])
      (lstm(8), (3, 4, 8), 1.0)
    """
    _check_params(params)
    cores = _cores(params)
    if isinstance(name, tuple):
        check(len(name) > 0, "name", f"some of {sorted(cores)}", name)
        made = [_from_core(params, cores, path) for path in name]
        _check_depth(name, [own for _, own in made])
        return stack(*(cell for cell, _ in made)), tuple(own for _, own in made)
    if name is None:
        check(len(cores) == 1, "name", f"a core's path, one of {sorted(cores)}", name)
        ((name, modules),) = cores.items()
        others = sorted(set(params) - set(modules.values()))
        check(not others, "name", f"a core's path, as {name!r}, beside {others}", None)
    return _from_core(params, cores, name)


def _check_params(params):
    check(isinstance(params, Mapping), "params", "a mapping of paths to entries", type(params))
    for path, entries in params.items():
        known = isinstance(entries, Mapping)
        check(known, f"params {path!r}", "a mapping of names to arrays", type(entries))


def _cores(params):
    """The paths of modules, by their last names, by the path of what may be their core."""
    found = collections.defaultdict(dict)
    for path in params:
        owner, _, last = path.rpartition("/")
        owner, last = (path, "") if "w_i" in params[path] else (owner, last)
        found[owner][last] = path
    known = {owner: m for owner, m in found.items() if owner and frozenset(m) in _READERS}
    expected = "modules of a core, as 'lstm/linear'"
    check(bool(known), "params", expected, f"{', '.join(params) or 'none'}")
    return known


def _from_core(params, cores, name):
    known = isinstance(name, str) and name in cores
    check(known, "name", f"a core's path, one of {sorted(cores)}", repr(name))
    modules = cores[name]
    entries = {last: Entries(f"params {path!r}", params[path]) for last, path in modules.items()}
    made = _READERS[frozenset(modules)](entries)
    for module in entries.values():
        module.finish()
    return made


def _check_depth(names, params):
    """Raises ValueError unless each core takes the outputs of the one before, and no more."""
    for path, below, own in zip(names[1:], params, params[1:], strict=False):
        given, taken = below.b.shape[-1], own.w_x.shape[-own.b.ndim - 1]
        expected = f"{given} features, as the core before it has outputs"
        check(given == taken, f"params of {path!r}", expected, taken)


def _hidden(module, name, w, gates):
    """H, of a matrix whose last axis is gates side by side."""
    hidden, rest = divmod(w.shape[-1], gates)
    fits = hidden > 0 and rest == 0
    expected = f"{gates} times the hidden size on the last axis"
    check(fits, f"{module.source} {name!r}", expected, w.shape)
    return hidden


def _order(w: Array) -> Array:
    """i, g, f, o as i, f, g, o, and back."""
    return w[..., [0, 2, 1, 3], :]


def _turn(w: Array) -> Array:
    """Gates z, r, n as r, z, n, with 1 - z for z."""
    z, r, n = jnp.moveaxis(w, -2, 0)
    return jnp.stack([r, -z, n], -2)


def _turn_back(w: Array) -> Array:
    r, z, n = jnp.moveaxis(w, -2, 0)
    return jnp.stack([-z, r, n], -2)


def _from_lstm(entries):
    linear = entries["linear"]
    w = linear.take("w", (None, None))
    hidden = _hidden(linear, "w", w, 4)
    b = linear.take("b", (4 * hidden,))
    features = len(w) - hidden
    expected = f"more than {hidden} rows, as many as features and hidden sizes"
    check(features > 0, f"{linear.source} 'w'", expected, w.shape)
    w, b = _order(split(w, 4)), _order(split(b, 4))
    return lstm(hidden), LSTMParams(w[:features], w[features:], b.at[1].add(1))


def _from_gru(entries):
    core = entries[""]
    w_x = core.take("w_i", (None, None))
    hidden = _hidden(core, "w_i", w_x, 3)
    w_h, b = core.take("w_h", (hidden, 3 * hidden)), core.take("b", (3 * hidden,))
    arrays = (_turn(split(a, 3)) for a in (w_x, w_h, b))
    return gru_reset_before(hidden), GRUResetBeforeParams(*arrays)


def _from_vanilla(entries):
    x, h = entries["linear"], entries["linear_1"]
    w_x = x.take("w", (None, None))
    hidden = w_x.shape[1]
    w_h, b = h.take("w", (hidden, hidden)), x.take("b", (hidden,))
    b = b + h.take("b", (hidden,)) if "b" in h else b
    return elman(hidden, activation="relu"), ElmanParams(w_x, w_h, b)


def _from_convlstm(entries):
    x, h = entries["input_to_hidden"], entries["hidden_to_hidden"]
    rank = min(max(np.ndim(x.arrays.get("w")), 3), 5)
    w_x = x.take("w", (None,) * rank)
    kernel, channels = w_x.shape[:-2], _hidden(x, "w", w_x, 4)
    w_h = h.take("w", (*kernel, channels, 4 * channels))
    b = x.take("b", (4 * channels,)) + h.take("b", (4 * channels,))
    w_x, w_h, b = (_order(split(a, 4)) for a in (w_x, w_h, b))
    return convlstm(channels, kernel), ConvLSTMParams(w_x, w_h, b.at[1].add(1))


_READERS = {  # by the names of a core's own modules
    frozenset([""]): _from_gru,
    frozenset(["linear"]): _from_lstm,
    frozenset(["linear", "linear_1"]): _from_vanilla,
    frozenset(["input_to_hidden", "hidden_to_hidden"]): _from_convlstm,
}


def to_haiku(
    layer: Cell | Layer, params: Params, *, name: str | tuple[str, ...] | None = None
) -> dict[str, dict[str, Array]]:
    """The params of the core of Haiku that has these.

    Haiku adds 1 to the forget gate in each step, so 1 is taken from its bias, which comes back
    bit for bit from 1/2 to 2 and else within the rounding of b - 1; the other weights always do.

    Args:
      layer: an `lstm`, a `gru_reset_before`, an `elman` with `activation="relu"` or a `convlstm`;
        or a `stack` of these, as an `hk.DeepRNN`.
      params: its params; they may be traced.
      name: the path of the core, `"my_model/~/lstm"`, of a stack one for each; None for the
        names that Haiku gives in an `hk.transform`: lstm, lstm_1, gru, vanilla_rnn, conv2_dlstm.

    Returns:
      The arrays by name by path of module, for `apply`. A `VanillaRNN` and a ConvLSTM have two
      biases, of which the second is zero; with `double_bias=False` it is not looked at.

    Raises:
      ValueError: if Haiku has no such core (tanh, peepholes, a projection, layer normalisation,
        clipping, both directions), or there are not as many names as cores.

    Example:
      >>> import jax
      >>> import jaxlstm as jl
      >>> from jaxlstm.interop import haiku
      >>> params = jl.init_lstm(jax.random.key(0), features=3, hidden=8)
      >>> weights = haiku.to_haiku(jl.lstm(8), params)
      >>> list(weights), weights["lstm/linear"]["w"].shape
      (['lstm/linear'], (11, 32))
    """
    cells: list[tuple[Call, Params]] = []
    for part in parts_of(layer, params):
        check(part.combine is None, "layer", "one direction, as Haiku has no other", layer)
        cells += part.cells
    for call, _ in cells:
        check_kinds(call, "Haiku", KINDS)
        activation = call.arguments.get("activation", "relu")
        expected = "'relu', as Haiku has no other"
        check(activation == "relu", "elman's activation", expected, repr(activation))
    given = (name,) if isinstance(name, str) else name
    check(
        given is None or isinstance(given, tuple), "name", "a path, or a tuple of them", repr(name)
    )
    names = _names([call for call, _ in cells]) if given is None else given
    fits = len(names) == len(set(names)) == len(cells)
    check(fits, "name", f"a path for each of {len(cells)} cores", repr(name))
    made: dict[str, dict[str, Array]] = {}
    for (_, own), path in zip(cells, names, strict=True):
        made |= {f"{path}{end}": entries for end, entries in _to_core(own).items()}
    return made


def _names(calls: list[Call]) -> tuple[str, ...]:
    """The names that Haiku gives to cores in the order of their making."""
    counts: collections.Counter[str] = collections.Counter()
    names = []
    for call in calls:
        space = len(call.arguments.get("kernel", ()))
        name = {
            "lstm": "lstm",
            "gru_reset_before": "gru",
            "elman": "vanilla_rnn",
            "convlstm": f"conv{space}_dlstm",
        }[call.factory]
        names.append(f"{name}_{counts[name]}" if counts[name] else name)
        counts[name] += 1
    return tuple(names)


def _to_core(params):
    """The entries of each module of a core, by what follows its path."""
    w_x, w_h, b = params[:3]
    if isinstance(params, GRUResetBeforeParams):
        arrays = {"w_i": w_x, "w_h": w_h, "b": b}
        return {"": {name: join(_turn_back(a)) for name, a in arrays.items()}}
    if isinstance(params, ElmanParams):
        return {"/linear": {"w": w_x, "b": b}, "/linear_1": {"w": w_h, "b": jnp.zeros_like(b)}}
    w_x, w_h, b = (join(_order(a)) for a in (w_x, w_h, b.at[1].add(-1)))
    if isinstance(params, LSTMParams):
        return {"/linear": {"w": jnp.concatenate([w_x, w_h]), "b": b}}
    hidden = {"w": w_h, "b": jnp.zeros_like(b)}
    return {"/input_to_hidden": {"w": w_x, "b": b}, "/hidden_to_hidden": hidden}
