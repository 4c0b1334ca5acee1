"""What Keras's layers have and ours have not, and the other way round, is said at the door."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl
from jaxlstm.interop.keras import from_keras, from_weights, to_keras

os.environ.setdefault("KERAS_BACKEND", "jax")
keras = pytest.importorskip("keras", reason="Keras is not installed: pip install keras==3.15.1")
if keras.backend.backend() != "jax":
    pytest.skip("Keras runs on another backend than JAX", allow_module_level=True)
layers = keras.layers

D, H = 4, 5
LINE = (6, D)
SAME = {"padding": "same"}


def bidirectional(ahead, back=None, merge="concat"):
    return layers.Bidirectional(ahead, merge, backward_layer=back)


def zeros_of(cell, x):
    """NumPy params; the cell's own would have to be compiled."""
    shapes = jax.eval_shape(cell.init, jax.random.key(0), x)
    return jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), shapes)


@keras.saving.register_keras_serializable("jaxlstm_tests")
class Own(layers.LSTM):
    """What a user makes of a layer."""


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (layers.LSTM(H, activation="relu"), r"lstm_cell's activation: expected tanh, got relu"),
        (layers.GRU(H, activation="hard_tanh"), r"gru_cell's activation: expected tanh, got hard"),
        (
            layers.LSTM(H, recurrent_activation="hard_sigmoid"),
            r"lstm_cell's recurrent_activation: expected sigmoid, got hard_sigmoid",
        ),
        (
            layers.GRU(H, recurrent_activation="tanh"),
            r"gru_cell's recurrent_activation: expected sigmoid, got tanh",
        ),
        (
            layers.SimpleRNN(H, activation=layers.ReLU()),
            r"simple_rnn_cell's activation: expected tanh or relu, got <ReLU",
        ),
        (layers.SimpleRNN(H, activation="relu6"), r"activation: expected tanh or relu, got relu6"),
        (layers.LSTM(H, go_backwards=True), r"lstm\w*'s go_backwards: expected False \(jl.backw"),
        (
            bidirectional(layers.LSTM(H, go_backwards=True), layers.LSTM(H)),
            r"forward_lstm\w*'s go_backwards: expected False",
        ),
        (
            bidirectional(layers.LSTM(H), None, "mul"),
            r"bidirectional\w*'s merge_mode: expected one of \['concat', 'sum'\], got 'mul'",
        ),
        (bidirectional(layers.LSTM(H), None, None), r"merge_mode: expected .*, got None"),
        (Own(H), r"layer: expected one of Keras's own LSTMCell, .*, got \S*test_keras_errors.Own"),
        (layers.Dense(H), r"layer: expected one of Keras's own .*, got Dense"),
    ],
)
def test_layers_that_are_not_ours_raise(layer, message):
    layer.build((None, None, D))
    with pytest.raises(ValueError, match=message):
        from_keras(layer)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"padding": "valid"}, r"cell\w*'s padding: expected 'same', got 'valid'"),
        (SAME | {"strides": 2}, r"cell\w*'s strides: expected \(1,\), got \(2,\)"),
        (SAME | {"dilation_rate": 2}, r"cell\w*'s dilation_rate: expected \(1,\), got \(2,\)"),
        (
            SAME | {"data_format": "channels_first"},
            r"cell\w*'s data_format: expected 'channels_last', got 'channels_first'",
        ),
        (SAME | {"activation": "relu"}, r"cell\w*'s activation: expected tanh, got relu"),
        (
            SAME | {"recurrent_activation": "hard_sigmoid"},
            r"cell\w*'s recurrent_activation: expected sigmoid, got hard_sigmoid",
        ),
    ],
)
def test_convolutions_that_are_not_ours_raise(options, message):
    layer = layers.ConvLSTM1D(2, 3, **options)
    layer.build((None, None, *LINE))
    with pytest.raises(ValueError, match=message):
        from_keras(layer)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (layers.LSTM(H), r"lstm_cell: expected a layer with weights: call or build it first"),
        (bidirectional(layers.GRU(H)), r"gru_cell: expected a layer with weights"),
        ([], r"layer: expected at least one recurrent layer, got a list of none"),
        (
            [layers.GRU(H), layers.GRU(H)],
            r"gru\w*'s return_sequences: expected True, as another layer comes after it",
        ),
        (5, r"layer: expected one of Keras's own .*, got builtins.int"),
    ],
)
def test_what_has_no_weights_raises(layer, message):
    with pytest.raises(ValueError, match=message):
        from_keras(layer)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w[:2], r"weights: expected 3, as lstm\w* has weights, got 2"),
        (
            lambda w: [w[0], w[1].T, w[2]],
            r"weights, 'lstm\w*/lstm_cell/recurrent_kernel': expected shape \(5, 20\), got \(20, 5",
        ),
        (lambda w: [w[0].astype(int), *w[1:]], r"'?lstm\w*/lstm_cell/kernel'?: expected floating"),
    ],
)
def test_weights_that_do_not_fit_raise_and_name_the_entry(change, message):
    layer = layers.LSTM(H)
    layer.build((None, None, D))
    with pytest.raises(ValueError, match=message):
        from_weights(layer, change([np.asarray(w.value) for w in layer.weights]))


@pytest.mark.parametrize(
    ("cell", "space", "message"),
    [
        (jl.lstm(H, peephole=True), None, r"lstm's peephole: expected its default False, as Keras"),
        (jl.lstm(H, projection=2), None, r"lstm's projection: expected its default None"),
        (jl.lstm(H, layer_norm=True), None, r"lstm's layer_norm: expected its default"),
        (jl.lstm(H, gate_clip=3.0), None, r"lstm's gate_clip: expected its default"),
        (jl.janet(H), None, r"layer: expected one of lstm\(\), .* got janet"),
        (jl.lstm(H), (6,), r"space: expected None, as lstm has none, got \(6,\)"),
        (jl.convlstm(2, (3,)), None, r"space: expected a tuple of 1, as Keras .*, got None"),
        (jl.convlstm(2, (3,)), (6, 6), r"space: expected a tuple of 1, as Keras .*, got \(6, 6\)"),
        (jl.convlstm(2, (3,)), (0,), r"space: expected a positive integer, got 0"),
    ],
    ids=repr,
)
def test_layers_that_keras_has_not_raise(cell, space, message):
    x = jnp.ones(LINE if cell is jl.convlstm(2, (3,)) else D)
    with pytest.raises(ValueError, match=message):
        to_keras(cell, zeros_of(cell, x), space=space)


def test_params_of_two_dtypes_raise():
    params = zeros_of(jl.gru(H), np.ones(D, "float32"))
    with pytest.raises(ValueError, match=r"params: expected one dtype, got float32, float64"):
        to_keras(jl.gru(H), params._replace(b=params.b.astype("float64")))
