"""ONNX Runtime, which computes in float32: values to 2e-6, a few rounding errors of gates below 1.

Gates are in ONNX's order i, o, f, c and peepholes in i, o, f; the output peephole sees the new
cell state.
"""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

T, B, D, H = 9, 4, 3, 5
LENGTHS = np.array([9, 4, 0, 6], np.int32)
TOLERANCE = {"rtol": 2e-6, "atol": 2e-6}


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


def stacked(w, order):
    """(D, G, H) as ONNX has it: (1, G*H, D), gates in its order."""
    return np.ascontiguousarray(w[:, order].transpose(1, 2, 0).reshape(1, -1, w.shape[0]))


@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("peephole", [False, True], ids=["plain", "peephole"])
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "lengths"])
def test_lstm(direction, peephole, lengths):
    params = jl.LSTMParams(
        draw(0, D, 4, H), draw(1, H, 4, H), draw(2, 4, H), draw(3, 3, H) if peephole else None
    )
    xs, carry = draw(4, T, B, D), jl.LSTMCarry(c=draw(5, B, H), h=draw(6, B, H))
    order = [0, 3, 1, 2]
    biases = np.concatenate([params.b[order].reshape(1, -1), np.zeros((1, 4 * H), np.float32)], 1)
    peepholes = params.peephole[[0, 2, 1]].reshape(1, -1) if peephole else None
    inputs = [
        xs, stacked(params.w_x, order), stacked(params.w_h, order), biases,
        lengths, carry.h[None], carry.c[None], peepholes,
    ]  # fmt: skip
    expected = run_node("LSTM", inputs, ["y", "h", "c"], direction=direction)
    last, ys = jl.scan(
        jl.lstm(H, peephole=peephole),
        *(params, jnp.asarray(xs), carry),
        lengths=lengths,
        reverse=direction == "reverse",
    )
    np.testing.assert_allclose(ys, expected[0][:, 0], **TOLERANCE)
    some = slice(None) if lengths is None else lengths > 0  # there, no steps give states of zero
    np.testing.assert_allclose(last.h[some], expected[1][0][some], **TOLERANCE)
    np.testing.assert_allclose(last.c[some], expected[2][0][some], **TOLERANCE)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "lengths"])
def test_gru(direction, lengths):
    params = jl.GRUParams(draw(0, D, 3, H), draw(1, H, 3, H), draw(2, 3, H), draw(3, H))
    xs, carry = draw(4, T, B, D), jl.GRUCarry(draw(5, B, H))
    order = [1, 0, 2]  # z, r, n
    of_h = np.concatenate([np.zeros((2, H), np.float32), params.b_n[None]])
    biases = np.concatenate([params.b[order].reshape(1, -1), of_h.reshape(1, -1)], 1)
    inputs = [
        xs, stacked(params.w_x, order), stacked(params.w_h, order), biases, lengths, carry.h[None],
    ]  # fmt: skip
    expected = run_node("GRU", inputs, ["y", "h"], direction=direction, linear_before_reset=1)
    last, ys = jl.scan(
        jl.gru(H), params, jnp.asarray(xs), carry, lengths=lengths, reverse=direction == "reverse"
    )
    np.testing.assert_allclose(ys, expected[0][:, 0], **TOLERANCE)
    some = slice(None) if lengths is None else lengths > 0
    np.testing.assert_allclose(last.h[some], expected[1][0][some], **TOLERANCE)
