"""ONNX Runtime, which computes in float32: values to 2e-6, a few rounding errors of gates below 1.

Gates are in ONNX's order i, o, f, c and peepholes in i, o, f; the output peephole sees the new
cell state; a bound clips what goes into a gate, peephole included. A sequence of no steps gives
last states of zero there: they are not compared.
"""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl
from tests.parity.agreement import agree

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install onnx==1.23.2")
onnxruntime = pytest.importorskip(
    "onnxruntime", reason="ONNX Runtime is not installed: pip install onnxruntime==1.31.1"
)

T, B, D, H = 9, 4, 3, 5
LENGTHS = np.array([9, 4, 0, 6], np.int32)
OPEN = 100.0  # a bias at which a gate without weights is 1 exactly


def run_node(op, inputs, outputs, **attributes):
    """A graph of one node, with all its inputs fed; None leaves an optional one out."""
    fed = {f"in{n}": a for n, a in enumerate(inputs) if a is not None}
    names = [f"in{n}" if a is not None else "" for n, a in enumerate(inputs)]
    node = onnx.helper.make_node(op, names, outputs, hidden_size=H, **attributes)
    info = lambda name, a: onnx.helper.make_tensor_value_info(
        name, onnx.helper.np_dtype_to_tensor_dtype(a.dtype), a.shape
    )
    shapes = [(None,) * (4 if name == "y" else 3) for name in outputs]
    typed = lambda name, shape: onnx.helper.make_tensor_value_info(
        name, onnx.TensorProto.FLOAT, shape
    )
    unknown = list(map(typed, outputs, shapes))
    graph = onnx.helper.make_graph([node], op, [info(n, a) for n, a in fed.items()], unknown)
    opset = [onnx.helper.make_opsetid("", 14)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)
    onnx.checker.check_model(model)
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, fed)


def draw(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def in_order(w, order):
    """(D, G, H) as ONNX has it: (1, G*H, D), gates in its order."""
    return np.ascontiguousarray(w[:, order].transpose(1, 2, 0).reshape(1, -1, w.shape[0]))


def compare(cell, params, carry, expected, options, lengths, reverse, oracle):
    """Last states and outputs; `expected` is ONNX's y, h and, of an LSTM, c."""
    xs = jnp.asarray(draw(4, T, B, D))
    last, ys = jl.scan(cell, params, xs, carry, lengths=lengths, reverse=reverse)
    some = slice(None) if lengths is None else lengths > 0
    states = [last.h, last.c] if hasattr(last, "c") else [last.h]
    y, *theirs = expected
    agree(
        *([ys, *(s[some] for s in states)], [y[:, 0], *(s[0][some] for s in theirs)], 2e-6),
        cell=cell.name.partition("(")[0],
        options=", ".join([*options, *["lengths"] * (lengths is not None), *["reverse"] * reverse]),
        oracle=f"ONNX Runtime {oracle}",
    )


def run_lstm(params, lengths=None, reverse=False, **attributes):
    """Of params with all four gates."""
    order = [0, 3, 1, 2]
    biases = np.concatenate([params.b[order].reshape(1, -1), np.zeros((1, 4 * H), np.float32)], 1)
    p = params.peephole
    carry = jl.LSTMCarry(c=draw(5, B, H), h=draw(6, B, H))
    inputs = [
        draw(4, T, B, D), in_order(params.w_x, order), in_order(params.w_h, order), biases,
        lengths, carry.h[None], carry.c[None], None if p is None else p[[0, 2, 1]].reshape(1, -1),
    ]  # fmt: skip
    attributes["direction"] = "reverse" if reverse else "forward"
    return carry, run_node("LSTM", inputs, ["y", "h", "c"], **attributes)


def lstm_params(peephole):
    arrays = draw(0, D, 4, H), draw(1, H, 4, H), draw(2, 4, H)
    return jl.LSTMParams(*arrays, draw(3, 3, H) if peephole else None)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("peephole", [False, True], ids=["plain", "peephole"])
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "lengths"])
def test_lstm(reverse, peephole, lengths):
    params = lstm_params(peephole)
    carry, expected = run_lstm(params, lengths, reverse)
    options = ["peephole"] * peephole
    cell = jl.lstm(H, peephole=peephole)
    compare(cell, params, carry, expected, options, lengths, reverse, "LSTM")


@pytest.mark.parametrize("peephole", [False, True], ids=["plain", "peephole"])
def test_gate_clip(peephole):
    params, bound = lstm_params(peephole), 0.7
    carry, expected = run_lstm(params, LENGTHS, clip=bound)
    unbound = run_lstm(params, LENGTHS)[1]
    assert np.abs(expected[0] - unbound[0]).max() > 0.1
    options = [*["peephole"] * peephole, "gate_clip"]
    cell = jl.lstm(H, peephole=peephole, gate_clip=bound)
    compare(cell, params, carry, expected, options, LENGTHS, False, "LSTM")


def onnx_of(name):
    """The attributes of ONNX's LSTM that make the variant of it."""
    attributes = {"input_forget": 1} if name == "cifg" else {}
    activations = ["Sigmoid", "Affine" if name == "niaf" else "Tanh"]
    activations.append("Affine" if name == "noaf" else "Tanh")
    if "Affine" in activations:
        attributes |= {"activations": activations, "activation_alpha": [1.0]}
        attributes |= {"activation_beta": [0.0]}
    return attributes


@pytest.mark.parametrize("name", ["nig", "nfg", "nog", "niaf", "noaf", "np", "cifg"])
def test_ablation(name):
    full, cell = lstm_params(name != "np"), jl.lstm_ablation(H, name)
    missing = {"nig": 0, "nfg": 1, "nog": 3, "cifg": 1}.get(name)
    kept = [gate for gate in range(4) if gate != missing]
    seeing = [n for n, gate in enumerate([0, 1, 3]) if gate != missing]  # of i, f, o
    arrays = full.w_x[:, kept], full.w_h[:, kept], full.b[kept]
    peephole = None if name == "np" else full.peephole[seeing]
    params = jl.LSTMAblationParams(*arrays, peephole, None)
    if name in ("nig", "nfg", "nog"):
        full.w_x[:, missing] = full.w_h[:, missing] = 0
        full.peephole[[0, 1, 3].index(missing)] = 0
        full.b[missing] = OPEN
    carry, expected = run_lstm(full, LENGTHS, **onnx_of(name))
    start = jl.LSTMAblationCarry(*carry, None)
    compare(cell, params, start, expected, [name], LENGTHS, False, "LSTM")


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "lengths"])
@pytest.mark.parametrize("after", [1, 0], ids=["reset after", "reset before"])
def test_gru(after, reverse, lengths):
    arrays, b_n = (draw(0, D, 3, H), draw(1, H, 3, H), draw(2, 3, H)), draw(3, H)
    h = draw(5, B, H)
    if after:
        cell, params, carry = jl.gru(H), jl.GRUParams(*arrays, b_n), jl.GRUCarry(h)
    else:
        cell, params = jl.gru_reset_before(H), jl.GRUResetBeforeParams(*arrays)
        b_n, carry = 0 * b_n, jl.GRUResetBeforeCarry(h)
    order = [1, 0, 2]  # z, r, n
    of_h = np.concatenate([np.zeros((2, H), np.float32), b_n[None]])
    biases = np.concatenate([params.b[order].reshape(1, -1), of_h.reshape(1, -1)], 1)
    inputs = [
        draw(4, T, B, D), in_order(params.w_x, order), in_order(params.w_h, order), biases,
        lengths, h[None],
    ]  # fmt: skip
    direction = "reverse" if reverse else "forward"
    attributes = {"direction": direction, "linear_before_reset": after}
    expected = run_node("GRU", inputs, ["y", "h"], **attributes)
    compare(cell, params, carry, expected, [], lengths, reverse, "GRU")
