"""ONNX models of several nodes, and what is between these."""

import jax
import numpy as np
import pytest

import jaxlstm as jl
from jaxlstm.interop.onnx import from_onnx
from tests.interop.onnx_models import XS, B, D, H, Model, T, alone, run
from tests.interop.test_onnx_export import ours, same


def test_batch_first_weights_are_those_of_time_first():
    stacked = Model()
    y = stacked.rnn("first", "LSTM", "x", direction="bidirectional", batch_first=True)
    x = stacked.add("Reshape", [y, stacked.weight("sizes", [0, 0, -1])], "joined")
    model = stacked.proto(stacked.rnn("second", "LSTM", x, 2 * H, batch_first=True), rank=4)
    layer, (first, second) = from_onnx(model)
    assert layer is jl.stack(jl.bidirectional(jl.lstm(H), jl.lstm(H)), jl.lstm(H))
    expected = from_onnx(alone("LSTM", direction="bidirectional"))[1]
    jax.tree.map(np.testing.assert_array_equal, first, expected)
    assert second.w_x.shape == (2 * H, 4, H)


def joined(op, **attributes):
    """Two nodes of both directions whose outputs go on through that op, and a GRU."""
    model = Model()
    ys = [model.rnn(way, "GRU", "x", direction=way) for way in ("reverse", "forward")][::-1]
    ys = [model.add("Squeeze", [y, model.weight("1", [1])], f"{y}.flat") for y in ys]
    features = 2 * H if op == "Concat" else H
    y = model.rnn("last", "GRU", model.add(op, ys, "joined", **attributes), features)
    return model.proto(y, rank=4)


@pytest.mark.parametrize(
    ("op", "attributes", "combine"),
    [("Concat", {"axis": 2}, "concatenate"), ("Add", {}, "sum"), ("Sum", {}, "sum")],
)
def test_two_nodes_of_one_input_are_both_directions(op, attributes, combine):
    model = joined(op, **attributes)
    layer, params = from_onnx(model)
    cell = jl.gru_reset_before(H)
    assert layer is jl.stack(jl.bidirectional(cell, cell, combine=combine), cell)
    same(ours(layer, params, XS)[:1], [run(model, XS)[:, 0]])


def test_two_nodes_of_a_model_that_is_batch_first():
    model = Model()
    x = model.add("Transpose", ["x"], "time first", perm=[1, 0, 2])
    ys = [model.rnn(way, "GRU", x, direction=way) for way in ("forward", "reverse")]
    ys = [model.add("Squeeze", [y, model.weight("1", [1])], f"{y}.flat") for y in ys]
    ys = [model.add("Transpose", [y], f"{y}.batch", perm=[1, 0, 2]) for y in ys]
    model = model.proto(model.add("Add", ys, "sum"))
    layer, params = from_onnx(model)
    cell = jl.gru_reset_before(H)
    assert layer is jl.bidirectional(cell, cell, combine="sum")
    expected = run(model, XS.swapaxes(0, 1)).swapaxes(0, 1)
    same(ours(layer, params, XS)[:1], [expected])


def test_nodes_of_one_name_are_all_taken():
    model = between(squeezed)
    for node in model.graph.node:
        node.name = "rnn"
    assert from_onnx(model)[0] is jl.stack(jl.elman(H), jl.elman(H))
    assert from_onnx(model, nodes=["second.Y"])[1].w_x.shape == (H, H)


def between(rearrange, sizes=("t", "b")):
    """A model of two nodes and what is between them: `rearrange(model, y) -> x`."""
    model = Model()
    x = rearrange(model, model.rnn("first", "RNN", "x"))
    return model.proto(model.rnn("second", "RNN", x, H), sizes=sizes, rank=4)


def reshape(*sizes):
    return lambda model, y: model.add("Reshape", [y, model.weight("sizes", sizes)], "x2")


def squeezed(model, y):
    return model.add("Squeeze", [y, model.weight("axis", [1])], "squeezed")


def computed_sizes(model, y):
    """As what comes of a reshape(y, (y.shape[0], -1, H))."""
    shape = model.add("Shape", [y], "shape")
    time = model.add("Gather", [shape, model.weight("0", [0])], "time")
    sizes = [time, model.weight("-1", [-1]), model.weight("size", [H])]
    return model.add("Reshape", [y, model.add("Concat", sizes, "sizes", axis=0)], "x2")


def there_and_back(model, y):
    y = squeezed(model, y)
    y = model.add("Cast", [model.add("Identity", [y], "y2")], "y3", to=1)
    y = model.add("Transpose", [model.add("Dropout", [y], "y4")], "y5", perm=[1, 0, 2])
    y = model.add("Unsqueeze", [model.add("Transpose", [y], "y6"), model.weight("2", [2])], "y7")
    y = model.add("Reshape", [y, model.weight("flat", [0, 0, -1])], "y8")
    return model.add("Transpose", [y], "y9", perm=[1, 2, 0])


@pytest.mark.parametrize(
    ("rearrange", "sizes"),
    [
        (squeezed, ("t", "b")),
        (reshape(0, -1, H), ("t", "b")),
        (reshape(T, B, H), (T, B)),
        (computed_sizes, ("t", "b")),
        (there_and_back, ("t", "b")),
    ],
    ids=["Squeeze", "Reshape", "sizes of the model", "sizes computed", "all kinds"],
)
def test_nodes_one_upon_another_are_a_stack(rearrange, sizes):
    model = between(rearrange, sizes)
    layer, params = from_onnx(model)
    assert layer is jl.stack(jl.elman(H), jl.elman(H))
    same(ours(layer, params, XS)[:1], [run(model, XS)[:, 0]])


def swapped(model, y):
    """Over the batch rather than time."""
    return model.add("Transpose", [squeezed(model, y)], "swapped", perm=[1, 0, 2])


def mixed(model, y):
    """A Reshape that mixes time and batch."""
    y = model.add("Reshape", [y, model.weight("flat", [-1, H])], "flat2")
    return model.add("Reshape", [y, model.weight("back", [B, -1, H])], "mixed")


def doubled(model, y):
    y = squeezed(model, y)
    return model.add("Add", [y, y], "doubled")


def activated(model, y):
    return model.add("Tanh", [squeezed(model, y)], "activated")


@pytest.mark.parametrize("rearrange", [swapped, mixed, doubled, activated])
@pytest.mark.parametrize("sizes", [("t", "b"), (T, B)], ids=["free", "fixed"])
def test_nodes_that_do_not_follow_raise_and_can_be_had_one_at_a_time(rearrange, sizes):
    model = between(rearrange, sizes)
    message = r"RNN 'second' 'X': expected the outputs of RNN 'first', .* nodes=\[\.\.\.\] takes"
    with pytest.raises(ValueError, match=message):
        from_onnx(model)
    first, second = (from_onnx(model, nodes=[name])[1] for name in ("first", "second"))
    assert first.w_x.shape == (D, H)
    assert second.w_x.shape == (H, H)


def test_two_directions_that_are_not_put_together_raise():
    model = Model()
    for way in ("forward", "reverse"):
        y = model.rnn(way, "GRU", "x", direction=way)
    message = r"GRU 'forward' and GRU 'reverse': expected outputs that the model puts side by side"
    with pytest.raises(ValueError, match=message):
        from_onnx(model.proto(y, rank=4))


def test_nodes_without_names_are_known_by_their_outputs():
    model = alone("GRU")
    model.graph.node[0].ClearField("name")
    assert from_onnx(model, nodes=["rnn.Y"])[0] is jl.gru_reset_before(H)
    with pytest.raises(ValueError, match=r"nodes: expected some of 'rnn.Y', got \['other'\]"):
        from_onnx(model, nodes=["rnn.Y", "other"])
    with pytest.raises(ValueError, match=r"nodes: expected some of 'rnn.Y', got \[\]"):
        from_onnx(model, nodes=[])
