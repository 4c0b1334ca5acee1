"""Weights taken out of ONNX models: ours run in float64, ONNX Runtime in float32, to 1e-6."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl
from jaxlstm.interop.onnx import from_onnx, to_onnx
from jaxlstm.interop.torch import from_torch
from tests.interop.onnx_models import XS, B, D, H, Model, T, alone, helper, numpy_helper, onnx, run
from tests.interop.test_onnx_export import LAYERS, draw, ours, params_of, same

AFFINE = {"activation_alpha": [1.0], "activation_beta": [0.0]}


BOTH_GRU = jl.bidirectional(jl.gru(H), jl.gru(H))
FLAT = jl.stack(BOTH_GRU, jl.backward(jl.lstm(2)), jl.gru(H))  # LAYERS[-1] has a stack in a stack
SAME_AS_LSTM = {"nig": True, "nfg": True, "nog": True, "np": False}  # and whether with peepholes


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_what_was_given_out_comes_back_bit_for_bit(layer):
    params = params_of(layer)
    model = to_onnx(layer, params, lengths=True, carry=True)
    again, back = from_onnx(model)
    for name, peephole in SAME_AS_LSTM.items():
        if layer is jl.lstm_ablation(H, name):
            assert again is jl.lstm(H, peephole=peephole)
            break
    else:
        assert again is {LAYERS[-1]: FLAT}.get(layer, layer)
        pairs = zip(jax.tree.leaves(back), jax.tree.leaves(params), strict=True)
        for actual, expected in pairs:
            np.testing.assert_array_equal(actual, expected)
    weights = lambda model: [i.raw_data for i in model.graph.initializer]
    assert weights(to_onnx(again, back, lengths=True, carry=True)) == weights(model)


def test_gates_that_are_open_come_back_as_an_lstm_that_does_the_same():
    layer = jl.lstm_ablation(H, "nfg")
    params = params_of(layer)
    same(ours(*from_onnx(to_onnx(layer, params)), XS), ours(layer, params, XS))


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(
    ("op", "given", "expected"),
    [
        ("LSTM", {}, jl.lstm(H)),
        ("LSTM", {"entries": "RBP", "clip": 0.3}, jl.lstm(H, peephole=True, gate_clip=0.3)),
        ("LSTM", {"entries": "R"}, jl.lstm(H)),
        ("LSTM", {"entries": "RBP", "input_forget": 1}, jl.lstm_ablation(H, "cifg")),
        ("LSTM", {"input_forget": 1}, jl.lstm_ablation(H, "cifg")),
        ("LSTM", {"activations": ["Sigmoid", "Affine", "Tanh"]}, jl.lstm_ablation(H, "niaf")),
        ("LSTM", {"activations": ["Sigmoid", "Tanh", "Affine"]}, jl.lstm_ablation(H, "noaf")),
        ("GRU", {}, jl.gru_reset_before(H)),
        ("GRU", {"linear_before_reset": 1}, jl.gru(H)),
        ("GRU", {"linear_before_reset": 1, "entries": "R"}, jl.gru(H)),
        ("RNN", {}, jl.elman(H)),
        ("RNN", {"activations": ["Relu"]}, jl.elman(H, activation="relu")),
    ],
    ids=str,
)
def test_a_node_taken_in_has_its_outputs(op, given, expected, direction):
    given = dict(given)
    count = 2 if direction == "bidirectional" else 1
    if "activations" in given:
        given["activations"] = given["activations"] * count
        affine = AFFINE if "Affine" in given["activations"] else {}
        given |= {name: value * count for name, value in affine.items()}
    model = alone(op, direction=direction, **given)
    layer, params = from_onnx(model)
    made = {"forward": expected, "reverse": jl.backward(expected)}
    assert layer is made.get(direction, jl.bidirectional(expected, expected))
    y = np.concatenate(np.moveaxis(run(model, XS), 1, 0), -1)
    same(ours(layer, params, XS)[:1], [y])


def test_states_that_the_model_takes_are_the_carry():
    model = Model()
    y = model.rnn("rnn", "LSTM", "x", initial_h="h", initial_c="c")
    model = model.proto(y, inputs=["h", "c"], rank=4)
    h, c = draw((np.empty((1, B, H)), np.empty((1, B, H))), 1)
    layer, params = from_onnx(model)
    expected = run(model, XS, h=h, c=c)[:, 0]
    same(ours(layer, params, XS, jl.LSTMCarry(c[0], h[0]))[:1], [expected])


@pytest.mark.parametrize("given", [None, 0.0])
def test_states_that_are_zero_for_every_batch_are_none(given):
    model = Model()
    sizes = model.add(
        "Concat", [model.weight("one", [1]), "batch", model.weight("h", [H])], "s", axis=0
    )
    model.nodes.insert(0, helper.make_node("Shape", ["x"], ["shape"]))
    gather = helper.make_node("Gather", ["shape", model.weight("at", [1])], ["batch"])
    model.nodes.insert(1, gather)
    value = {} if given is None else {"value": numpy_helper.from_array(np.array([given], "f"))}
    zeros = model.add("ConstantOfShape", [sizes], "zeros", **value)
    y = model.rnn("rnn", "GRU", "x", initial_h=model.add("Identity", [zeros], "same"))
    model = model.proto(y, rank=4)
    same(ours(*from_onnx(model), XS)[:1], [run(model, XS)[:, 0]])


def test_weights_that_are_made_of_constants():
    model = Model()
    y = model.rnn("rnn", "LSTM", "x")
    w = numpy_helper.to_array(model.weights.pop("rnn.W"))
    before = model.nodes
    model.nodes = []
    constant = numpy_helper.from_array(w[0].T.astype(np.float64))
    w = model.add("Transpose", [model.add("Constant", [], "a", value=constant)], "b")
    w = model.add("Unsqueeze", [w, model.weight("0", [0])], "c")
    model.add("Identity", [model.add("Cast", [w], "d", to=1)], "rnn.W")
    model.nodes += before
    expected = from_onnx(alone("LSTM"))[1]
    actual = from_onnx(model.proto(y, rank=4))[1]
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_dtypes_are_kept(dtype):
    _, params = from_onnx(alone("GRU", dtype=jnp.dtype(dtype), linear_before_reset=1))
    assert {a.dtype for a in params} == {jnp.dtype(dtype)}


def test_a_file_and_bytes(tmp_path):
    model = alone("LSTM")
    onnx.save(model, tmp_path / "model.onnx")
    for source in (
        tmp_path / "model.onnx",
        str(tmp_path / "model.onnx"),
        model.SerializeToString(),
    ):
        layer, params = from_onnx(source)
        assert layer is jl.lstm(H)
        jax.tree.map(np.testing.assert_array_equal, params, from_onnx(model)[1])


def without(entry):
    model = Model()
    y = model.rnn("rnn", "LSTM", "x")
    del model.weights[f"rnn.{entry}"]
    return model.proto(y, rank=4)


def with_array(entry, array):
    model = alone("LSTM", entries="RBP")
    (old,) = (i for i in model.graph.initializer if i.name == f"rnn.{entry}")
    old.CopyFrom(numpy_helper.from_array(array, old.name))
    return model


def started(make):
    """A model whose initial state is `make(model) -> name`."""
    model = Model()
    h = make(model)
    return model.proto(model.rnn("rnn", "RNN", "x", initial_h=h), rank=4)


def of_another_node(model):
    model.rnn("encoder", "RNN", "x")
    return "encoder.Y_h"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (5, r"model: expected an onnx.ModelProto, bytes or a path, got <class 'int'>"),
        (Model().proto("x"), r"model: expected LSTM, GRU or RNN nodes, got none"),
        (without("W"), r"LSTM 'rnn' 'W': expected an initializer or a constant, got rnn.W"),
        (without("B"), r"LSTM 'rnn' 'B': expected an initializer or a constant, got rnn.B"),
        (
            with_array("W", np.zeros((1, 12, D), "f")),
            r"LSTM 'rnn' 'W': expected shape \(1, 16, any\), got \(1, 12, 3\)",
        ),
        (
            with_array("R", np.zeros((1, 12, H), "f")),
            r"LSTM 'rnn' 'R': expected 4 times 4 rows, got \(1, 12, 4\)",
        ),
        (
            with_array("R", np.zeros((1, 20, 5), "f")),
            r"LSTM 'rnn' 'R': expected shape \(1, any, 4\), got \(1, 20, 5\)",
        ),
        (
            with_array("B", np.zeros((1, 16), "f")),
            r"LSTM 'rnn' 'B': expected shape \(1, 32\), got \(1, 16\)",
        ),
        (
            with_array("P", np.zeros((1, 16), "f")),
            r"LSTM 'rnn' 'P': expected shape \(1, 12\), got \(1, 16\)",
        ),
        (
            with_array("W", np.zeros((1, 16, D), int)),
            r"LSTM 'rnn' 'W': expected floating-point numbers, got int64",
        ),
        (alone("GRU", clip=1.0), r"GRU 'rnn' 'clip': expected no such attribute, .* got 1.0"),
        (alone("RNN", clip=1.0), r"RNN 'rnn' 'clip': expected no such attribute"),
        (alone("LSTM", clip=0.0), r"LSTM 'rnn' 'clip': expected a positive number, got 0.0"),
        (alone("LSTM", clip=1.0, input_forget=1), r"LSTM 'rnn' 'clip': expected no such"),
        (
            alone("LSTM", activations=["Sigmoid", "Affine", "Tanh"], input_forget=1, **AFFINE),
            r"LSTM 'rnn' 'input_forget': expected no such attribute, .* got 1",
        ),
        (
            alone("LSTM", activations=["HardSigmoid", "Tanh", "Tanh"]),
            r"LSTM 'rnn' 'activations': expected Sigmoid, Tanh, Tanh, or .* got \('hardsigmoid',",
        ),
        (
            alone("LSTM", activations=["Sigmoid", "Affine", "Tanh"], activation_alpha=[2.0]),
            r"LSTM 'rnn' 'activation_alpha': expected 1.0 for Affine, .* got \[2.0\]",
        ),
        (
            alone("LSTM", activations=["Sigmoid", "Affine", "Tanh"]),
            r"LSTM 'rnn' 'activation_alpha': expected 1.0 for Affine, .* got \[\]",
        ),
        (
            alone(
                "LSTM",
                **AFFINE | {"activation_beta": [0.5]},
                activations=["Sigmoid", "Tanh", "Affine"],
            ),
            r"LSTM 'rnn' 'activation_beta': expected 0.0 for Affine",
        ),
        (
            alone("LSTM", activations=["Sigmoid"]),
            r"LSTM 'rnn' 'activations': expected 3 of them, got \['sigmoid'\]",
        ),
        (
            alone("GRU", activations=["Sigmoid", "Relu"]),
            r"GRU 'rnn' 'activations': expected Sigmoid, Tanh, got \('sigmoid', 'relu'\)",
        ),
        (alone("RNN", activations=["Elu"]), r"RNN 'rnn' 'activations': expected Tanh or Relu"),
        (alone("RNN", direction="up"), r"RNN 'rnn' 'direction': expected one of .* got 'up'"),
        (alone("RNN", novelty=1), r"RNN 'rnn': expected some of activations, .* got novelty"),
        (
            started(lambda model: model.weight("h", np.ones((1, B, H), "f"))),
            r"RNN 'rnn' 'initial_h': expected zeros or an input of the model, .* got h",
        ),
        (started(of_another_node), r"RNN 'rnn' 'initial_h': expected zeros .* got encoder.Y_h"),
    ],
)
def test_models_that_do_not_fit_raise_and_name_the_entry(model, message):
    with pytest.raises(ValueError, match=message):
        from_onnx(model)


@pytest.mark.filterwarnings("ignore")  # the exporter's many: it is PyTorch's old one
@pytest.mark.parametrize("sizes", [None, {"x": {0: "t", 1: "b"}}], ids=["fixed", "free"])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("LSTM", {"num_layers": 2, "bidirectional": True, "batch_first": True, "dropout": 0.3}),
        ("GRU", {"num_layers": 3}),
        ("RNN", {"nonlinearity": "relu", "bidirectional": True, "bias": False}),
    ],
)
def test_what_pytorch_s_exporter_writes(kind, options, sizes):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    torch.manual_seed(3)
    module = getattr(torch.nn, kind)(D, H, **options).eval()
    head = torch.nn.Linear(H * (2 if module.bidirectional else 1), 2)

    class Tagger(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = module, head

        def forward(self, x):
            return self.head(self.rnn(x)[0])

    file, example = io.BytesIO(), torch.zeros(T, B, D)
    written = dict(dynamo=False, input_names=["x"], dynamic_axes=sizes)
    torch.onnx.export(Tagger(), (example,), file, **written)
    layer, params = from_onnx(file.getvalue())
    expected, weights = from_torch(module)
    assert layer is expected
    jax.tree.map(np.testing.assert_array_equal, params, weights)
