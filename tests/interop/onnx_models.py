"""ONNX models made by hand, of nodes with random weights."""

import numpy as np
import pytest

from tests.interop.test_onnx_export import draw, session_of

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install onnx")
helper, numpy_helper = onnx.helper, onnx.numpy_helper

T, B, D, H = 6, 3, 3, 4
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
XS = draw(np.empty((T, B, D)), 0)


class Model:
    """A model under construction, its tensors known by name."""

    def __init__(self, dtype=np.float32):
        self.dtype, self.nodes, self.weights = dtype, [], {}
        self.outputs, self.inputs = [], []

    def weight(self, name, array):
        self.weights[name] = numpy_helper.from_array(np.asarray(array), name)
        return name

    def add(self, op, inputs, output, **attributes):
        self.nodes.append(helper.make_node(op, inputs, [output], f"{op} of {output}", **attributes))
        return output

    def rnn(self, name, op, x, features=D, *, entries="RB", hidden=H, batch_first=False, **given):
        """A recurrent node of random weights; `given` are its attributes, and other inputs."""
        count = 2 if given.get("direction") == "bidirectional" else 1
        rows, rng = GATES[op] * hidden, np.random.default_rng(len(self.nodes))
        shapes = {"W": (rows, features), "R": (rows, hidden), "B": (2 * rows,), "P": (3 * hidden,)}
        inputs = dict.fromkeys(["X", "W", "R", "B", "L", "initial_h", "initial_c", "P"], "")
        for entry in {"W", *entries}:
            array = (0.5 * rng.normal(size=(count, *shapes[entry]))).astype(self.dtype)
            inputs[entry] = self.weight(f"{name}.{entry}", array)
        inputs |= {"X": x} | {entry: given.pop(entry) for entry in inputs if entry in given}
        inputs = list(inputs.values())
        while not inputs[-1]:
            inputs.pop()
        outputs = [f"{name}.Y", f"{name}.Y_h", f"{name}.Y_c"][: 3 if op == "LSTM" else 2]
        given |= {"layout": 1} if batch_first else {}
        node = helper.make_node(op, inputs, outputs, name, hidden_size=hidden, **given)
        self.nodes.append(node)
        return outputs[0]

    def proto(self, output, *, inputs=(), sizes=("t", "b"), rank=3, opset=17):
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))
        info = lambda name, shape: helper.make_tensor_value_info(name, kind, shape)
        fed = [info("x", [*sizes, D]), *(info(name, [None, "b", H]) for name in inputs)]
        outputs = [info(output, [None] * rank)]
        graph = helper.make_graph(self.nodes, "g", fed, outputs, list(self.weights.values()))
        operators = [helper.make_opsetid("", opset)]
        return helper.make_model(graph, opset_imports=operators, ir_version=8)


def alone(op, *, dtype=np.float32, **given):
    """A model of one node."""
    model = Model(dtype)
    return model.proto(model.rnn("rnn", op, "x", **given), rank=4)


def run(model, xs, **fed):
    return session_of(model).run(None, {"x": xs, **fed})[0]
