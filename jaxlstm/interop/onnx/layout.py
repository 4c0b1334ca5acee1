"""One direction of ONNX's LSTM, GRU and RNN nodes, and the cell that it is."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxlstm.base import Cell, Params
from jaxlstm.cells.ablations import GATES, LSTMAblationParams, lstm_ablation
from jaxlstm.cells.elman import ElmanParams, elman
from jaxlstm.cells.gru import GRUParams, gru
from jaxlstm.cells.gru_reset_before import GRUResetBeforeParams, gru_reset_before
from jaxlstm.cells.lstm import LSTMParams, lstm
from jaxlstm.checks import check
from jaxlstm.interop.calls import Call, check_kinds

KINDS = {
    "lstm": ["peephole", "gate_clip"],
    "lstm_ablation": ["name"],
    "gru": [],
    "gru_reset_before": [],
    "elman": ["activation"],
}
ORDER = {"LSTM": [0, 3, 1, 2], "GRU": [1, 0, 2], "RNN": [0]}  # of ONNX: i o f c, z r h
PLAIN = {"LSTM": ("sigmoid", "tanh", "tanh"), "GRU": ("sigmoid", "tanh"), "RNN": ("tanh",)}
OPEN = 100.0  # a bias at which the sigmoid of a gate without weights is 1 exactly


class Direction(NamedTuple):
    """One direction of a node, its arrays in ONNX's order.

    Attributes:
      op: `"LSTM"`, `"GRU"` or `"RNN"`.
      activations: in small letters; `"affine"` is the identity.
      options: of the attributes `clip`, `input_forget` and `linear_before_reset` those given.
      w: (G*H, D).
      r: (G*H, H).
      b: (2*G*H,), that of x and then that of h.
      p: (3*H,) of i, o, f, or None.
    """

    op: str
    activations: tuple[str, ...]
    options: dict[str, Any]
    w: np.ndarray
    r: np.ndarray
    b: np.ndarray
    p: np.ndarray | None


def direction_of(call: Call, params: Params) -> Direction:
    """What ONNX has for the cell of that call.

    Raises:
      ValueError: if it has none.
    """
    check_kinds(call, "ONNX", KINDS)
    arguments = call.arguments
    if call.factory == "elman":
        w_x, w_h, b = (np.asarray(a)[..., None, :] for a in params)
        return _direction("RNN", w_x, w_h, b, activations=(arguments["activation"],))
    if call.factory == "gru_reset_before":
        return _direction("GRU", *map(np.asarray, params))
    if call.factory == "gru":
        w_x, w_h, b, b_n = map(np.asarray, params)
        b_h = np.zeros_like(b)
        b_h[2] = b_n
        return _direction("GRU", w_x, w_h, b, b_h, options={"linear_before_reset": 1})
    if call.factory == "lstm":
        arrays = [None if a is None else np.asarray(a) for a in params[:4]]
        clip = arguments["gate_clip"]
        options = {} if clip is None else {"clip": float(clip)}
        return _direction("LSTM", *arrays[:3], peephole=arrays[3], options=options)
    return _of_ablation(arguments["name"], params)


def _of_ablation(name, params):
    others = ", ".join(sorted(set(GATES) - {"fgr"}))
    check(name != "fgr", "lstm_ablation's name", f"one of {others}, as ONNX has", repr(name))
    gates = ["ifgo".index(gate) for gate in GATES[name]]
    seeing = ["ifo".index(gate) for gate in GATES[name] if gate != "g"]

    def spread(a, axis, places, size):
        """`a` with zeros for the gates that the variant has not."""
        full = np.zeros((*a.shape[:axis], size, *a.shape[axis + 1 :]), a.dtype)
        full[(slice(None),) * axis + (places,)] = a
        return full

    w_x, w_h, b = map(np.asarray, params[:3])
    w_x, w_h, b = spread(w_x, 1, gates, 4), spread(w_h, 1, gates, 4), spread(b, 0, gates, 4)
    missing = {"nig": 0, "nfg": 1, "nog": 3}.get(name)
    if missing is not None:
        b[missing] = OPEN
    p = None if params.peephole is None else spread(np.asarray(params.peephole), 0, seeing, 3)
    activations = {"niaf": ("sigmoid", "affine", "tanh"), "noaf": ("sigmoid", "tanh", "affine")}
    options = {"input_forget": 1} if name == "cifg" else {}
    activations = activations.get(name, PLAIN["LSTM"])
    return _direction("LSTM", w_x, w_h, b, peephole=p, activations=activations, options=options)


def _direction(op, w_x, w_h, b, b_h=None, *, peephole=None, activations=None, options=None):
    order = ORDER[op]
    rows = lambda w: np.ascontiguousarray(w[:, order].transpose(1, 2, 0)).reshape(-1, w.shape[0])
    b_h = np.zeros_like(b) if b_h is None else b_h
    both = np.concatenate([b[order], b_h[order]]).reshape(-1)
    p = None if peephole is None else peephole[[0, 2, 1]].reshape(-1)
    return Direction(op, activations or PLAIN[op], options or {}, rows(w_x), rows(w_h), both, p)


def attributes_of(directions: Sequence[Direction]) -> dict[str, Any]:
    """The attributes of a node of one direction or two that are alike."""
    names = [name for direction in directions for name in direction.activations]
    attributes = dict(directions[0].options)
    if tuple(names) != PLAIN[directions[0].op] * len(directions):
        attributes["activations"] = [name.title() for name in names]
    if "affine" in names:
        attributes["activation_alpha"] = [1.0] * names.count("affine")
        attributes["activation_beta"] = [0.0] * names.count("affine")
    return attributes


def cell_of(direction: Direction, node: str) -> tuple[Cell, Params]:
    """The cell, and its params, that one direction of a node is.

    Args:
      direction: what the node has.
      node: its kind and name, for errors.

    Raises:
      ValueError: if there is no such cell.
    """
    op, activations, options, w, r, b, p = direction
    hidden, order = r.shape[1], ORDER[op]
    back = np.argsort(order)
    gates = lambda a: a.reshape(len(order), hidden, -1).transpose(2, 0, 1)[:, back]
    w_x, w_h = gates(w), gates(r)
    b_x, b_h = b.reshape(2, len(order), hidden)[:, back]
    options = {name: value for name, value in options.items() if value or name == "clip"}
    if op == "RNN":
        _check_options(node, options, ())
        plain = activations[0] in ("tanh", "relu")
        check(plain, f"{node} 'activations'", "Tanh or Relu", activations)
        arrays = (w_x[:, 0], w_h[:, 0], (b_x + b_h)[0])
        return elman(hidden, activation=activations[0]), ElmanParams(*map(jnp.asarray, arrays))
    if op == "GRU":
        _check_options(node, options, ("linear_before_reset",))
        check(activations == PLAIN[op], f"{node} 'activations'", "Sigmoid, Tanh", activations)
        if not options:
            params = GRUResetBeforeParams(*map(jnp.asarray, (w_x, w_h, b_x + b_h)))
            return gru_reset_before(hidden), params
        b_x[:2] += b_h[:2]
        return gru(hidden), GRUParams(*map(jnp.asarray, (w_x, w_h, b_x, b_h[2])))
    p = None if p is None else p.reshape(3, hidden)[[0, 2, 1]]
    return _lstm_of(node, activations, options, (w_x, w_h, b_x + b_h), p)


def _lstm_of(node, activations, options, arrays, p):
    hidden = arrays[0].shape[-1]
    if activations == PLAIN["LSTM"] and "input_forget" not in options:
        _check_options(node, options, ("clip",))
        params = LSTMParams(*map(jnp.asarray, arrays), None if p is None else jnp.asarray(p))
        clip = options.get("clip")
        check(clip is None or clip > 0, f"{node} 'clip'", "a positive number", clip)
        clip = clip and float(str(np.float32(clip)))  # the attribute is a float32: 0.7, not 0.69999
        return lstm(hidden, peephole=p is not None, gate_clip=clip), params
    name = {PLAIN["LSTM"]: "cifg", ("sigmoid", "affine", "tanh"): "niaf"}.get(activations, "noaf")
    known = [PLAIN["LSTM"], ("sigmoid", "affine", "tanh"), ("sigmoid", "tanh", "affine")]
    expected = "Sigmoid, Tanh, Tanh, or Affine in place of one Tanh"
    check(activations in known, f"{node} 'activations'", expected, activations)
    _check_options(node, options, ("input_forget",) if name == "cifg" else ())
    gates = ["ifgo".index(gate) for gate in GATES[name]]
    seeing = ["ifo".index(gate) for gate in GATES[name] if gate != "g"]
    w_x, w_h, b = arrays
    p = np.zeros((3, hidden), b.dtype) if p is None else p
    kept = map(jnp.asarray, (w_x[:, gates], w_h[:, gates], b[gates], p[seeing]))
    return lstm_ablation(hidden, name), LSTMAblationParams(*kept, None)


def _check_options(node: str, options: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for name, value in options.items():
        expected = "no such attribute, as no cell here has it with these activations"
        check(name in known, f"{node} {name!r}", expected, value)
