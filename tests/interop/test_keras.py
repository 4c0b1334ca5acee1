"""Keras's layers and ours with one set of weights: in float64 to 1e-12, in float32 to 1e-6.

On its JAX backend Keras computes tanh in float32 whatever the dtype, so that in float64 it is given
JAX's.
"""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl
from jaxlstm.interop.keras import from_keras, to_keras
from tests import matrices

os.environ.setdefault("KERAS_BACKEND", "jax")
keras = pytest.importorskip("keras", reason="Keras is not installed: pip install keras==3.15.1")
if keras.backend.backend() != "jax":
    pytest.skip("Keras runs on another backend than JAX", allow_module_level=True)
layers = keras.layers

T, B, D, H = 7, 3, 4, 5
LINE, IMAGE, SOLID = (6, D), (3, 4, D), (2, 3, 2, D)
SAME = {"padding": "same"}


QUICK = {"kernel_initializer": "zeros", "recurrent_initializer": "zeros"}  # to draw nothing


def bidirectional(ahead, back=None, merge="concat", **options):
    return layers.Bidirectional(ahead, merge, backward_layer=back, **options)


def stacked(return_sequences, **o):
    cells = layers.StackedRNNCells(
        [layers.LSTMCell(H, **o), layers.GRUCell(6, **o)], dtype=o["dtype"]
    )
    return layers.RNN(cells, return_sequences=True, dtype=o["dtype"])


def sequential(**o):
    return keras.Sequential(
        [
            keras.Input((None, D), dtype=o["dtype"]),  # which makes it float32 if not told
            layers.LSTM(H, dropout=0.5, recurrent_dropout=0.5, **o),
            layers.Dropout(0.5, dtype=o["dtype"]),
            bidirectional(layers.SimpleRNN(3, activation="relu", **o), dtype=o["dtype"]),
            layers.GRU(H, **o),
        ]
    )


ONE = {  # how to make the layer, one step of its input, and what it is here
    "lstm": (lambda **o: layers.LSTM(H, **o), (D,), jl.lstm(H)),
    "gru": (lambda **o: layers.GRU(H, **o), (D,), jl.gru(H)),
    "gru_reset_before": (
        *(lambda **o: layers.GRU(H, reset_after=False, **o), (D,)),
        jl.gru_reset_before(H),
    ),
    "tanh": (lambda **o: layers.SimpleRNN(H, **o), (D,), jl.elman(H)),
    "relu": (
        *(lambda **o: layers.SimpleRNN(H, activation="relu", **o), (D,)),
        jl.elman(H, activation="relu"),
    ),
    "line": (lambda **o: layers.ConvLSTM1D(3, 4, **SAME, **o), LINE, jl.convlstm(3, (4,))),
    "image": (
        *(lambda **o: layers.ConvLSTM2D(3, (3, 2), **SAME, **o), IMAGE),
        jl.convlstm(3, (3, 2)),
    ),
    "solid": (
        *(lambda **o: layers.ConvLSTM3D(2, (3, 1, 2), **SAME, **o), SOLID),
        jl.convlstm(2, (3, 1, 2)),
    ),
}
UNBIASED = {
    f"{name} without bias": (lambda make=make, **o: make(use_bias=False, **o), *rest)
    for name, (make, *rest) in ONE.items()
    if name not in ("relu", "line", "solid")
}
MORE = {
    "both": (
        *(lambda **o: bidirectional(layers.LSTM(H, **o), dtype=o["dtype"]), (D,)),
        jl.bidirectional(jl.lstm(H), jl.lstm(H)),
    ),
    "sum": (
        *(lambda **o: bidirectional(layers.GRU(H, **o), None, "sum", dtype=o["dtype"]), (D,)),
        jl.bidirectional(jl.gru(H), jl.gru(H), combine="sum"),
    ),
    "of two kinds": (
        lambda **o: bidirectional(
            *(layers.LSTM(H, **o), layers.SimpleRNN(6, go_backwards=True, **o)), dtype=o["dtype"]
        ),
        *((D,), jl.bidirectional(jl.lstm(H), jl.elman(6))),
    ),
    "both of a line": (
        lambda **o: bidirectional(layers.ConvLSTM1D(2, 3, **SAME, **o), dtype=o["dtype"]),
        *(LINE, jl.bidirectional(jl.convlstm(2, (3,)), jl.convlstm(2, (3,)))),
    ),
    "cells": (stacked, (D,), jl.stack(jl.lstm(H), jl.gru(6))),
    "sequential": (
        *(sequential, (D,)),
        jl.stack(
            jl.lstm(H),
            jl.bidirectional(*[jl.elman(3, activation="relu")] * 2),
            jl.gru(H),
        ),
    ),
}
CASES = ONE | UNBIASED | MORE


def exact(layer):
    for part in layer._flatten_layers():
        if getattr(part, "activation", None) is keras.activations.tanh and hasattr(part, "kernel"):
            part.activation = jnp.tanh
    return layer


@functools.cache
def make(name, dtype="float64"):
    build, step, _ = CASES[name]
    layer = build(return_sequences=True, dtype=dtype, **QUICK)
    layer.build((None, None, *step))
    rng = np.random.default_rng(1)
    layer.set_weights([0.4 * rng.normal(size=w.shape).astype(dtype) for w in layer.weights])
    return exact(layer) if dtype == "float64" else layer


def weights_of(layer):
    return [np.asarray(w.value) for w in layer.weights]


def inputs(name, dtype="float64"):
    return np.random.default_rng(0).normal(size=(B, T, *CASES[name][1])).astype(dtype)


def zeros_of(cell, x):
    """NumPy params; the cell's own would have to be compiled."""
    shapes = jax.eval_shape(cell.init, jax.random.key(0), x)
    return jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), shapes)


def run(layer, params, xs, **options):
    """Of Keras's inputs, as Keras has outputs."""
    go = layer.apply if isinstance(layer, jl.Layer) else functools.partial(jl.scan, layer)
    _, ys = go(params, jnp.asarray(xs.swapaxes(0, 1)), **options)
    return np.asarray(ys).swapaxes(0, 1)


def close(actual, expected, tolerance=1e-12):  # of values below 3, after seven steps
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.dtype == expected.dtype
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


def space_of(name):
    return {LINE: (6,), IMAGE: (3, 4), SOLID: (2, 3, 2)}.get(CASES[name][1])


@pytest.mark.parametrize("name", CASES)
def test_a_layer_taken_in_has_its_outputs(name):
    layer, params = from_keras(make(name))
    assert layer is CASES[name][2]
    xs = inputs(name)
    shapes = lambda tree: jax.tree.map(lambda a: (a.shape, a.dtype), tree)
    assert shapes(params) == shapes(zeros_of(layer, xs[:, 0]))
    close(run(layer, params, xs), make(name)(xs))


@pytest.mark.parametrize(
    "name", matrices.few(["lstm", "gru", "tanh", "relu", "image"], long=["tanh", "relu", "image"])
)
def test_a_layer_of_single_precision_and_both_ways(name):
    xs = inputs(name, "float32")
    expected = make(name, "float32")(xs)
    layer, params = from_keras(make(name, "float32"))
    close(run(layer, params, xs), expected, 1e-6)
    made = to_keras(layer, params, space=space_of(name))
    close(made(xs), expected, 1e-6)


@pytest.mark.parametrize("name", ONE | MORE)
def test_params_given_out_come_back_bit_for_bit(name):
    """So that the layer has the outputs too, which what is taken in is held to above."""
    _, like = from_keras(make(name))
    rng, layer = np.random.default_rng(2), CASES[name][2]
    draw = lambda a: jnp.asarray(0.4 * rng.normal(size=a.shape), a.dtype)
    params = jax.tree.map(draw, like)
    made = to_keras(layer, params, space=space_of(name))
    again, back = from_keras(made)
    assert again is layer
    jax.tree.map(np.testing.assert_array_equal, back, params)


@pytest.mark.parametrize("name", [n for n in ONE if n != "gru"] + ["both", "of two kinds"])
def test_weights_taken_in_go_out_bit_for_bit(name):
    """But for a GRU's, of which two biases count by their sum."""
    made = to_keras(*from_keras(make(name)), space=space_of(name))
    for actual, expected in zip(weights_of(made), weights_of(make(name)), strict=True):
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("name", ["lstm", "gru", "image"])
def test_states_before_and_after(name):
    cell = CASES[name][2]
    _, params = from_keras(make(name))
    made = exact(to_keras(cell, params, space=space_of(name)))
    made.return_state = True
    xs = jnp.asarray(inputs(name))
    zeros = cell.initial_carry(params, xs[:, 0])
    start = jax.tree.map(lambda a: a + 0.3 * jnp.arange(B).reshape(B, *[1] * (a.ndim - 1)), zeros)
    ys, *states = made(xs, initial_state=list(start[::-1]))
    last, expected = jl.scan(cell, params, xs.swapaxes(0, 1), start)
    close(expected.swapaxes(0, 1), ys)
    for ours, theirs in zip(last[::-1], states, strict=True):
        close(ours, theirs)


@pytest.mark.parametrize("name", ["lstm", "sum"])
def test_lengths_are_masks(name):
    lengths = np.array([T, 0, 4])
    mask, xs = np.arange(T) < lengths[:, None], inputs(name)
    layer, params = from_keras(make(name))
    ours = run(layer, params, xs, lengths=lengths)
    close(ours[mask], make(name)(xs, mask=mask)[mask])
    close(ours, exact(to_keras(layer, params))(xs, mask=mask))


def test_the_last_output_alone():
    cells, params = from_keras(make("cells"))
    last, xs = to_keras(cells, params, return_sequences=False), inputs("cells")
    close(exact(last)(xs), run(cells, params, xs)[:, -1])


@pytest.mark.parametrize("kind", ["LSTMCell", "GRUCell", "SimpleRNNCell", "StackedRNNCells"])
def test_a_cell_of_one_step(kind):
    if kind == "StackedRNNCells":
        cell = make("cells").cell
        states = [[np.full((B, H), 0.2), np.full((B, H), -0.7)], [np.full((B, 6), 0.5)]]
        carry = (jl.LSTMCarry(*states[0][::-1]), jl.GRUCarry(*states[1]))
    else:
        cell = getattr(layers, kind)(H, dtype="float64")
        cell.build((None, D))
        exact(cell)
        states = [np.full((B, H), 0.2), np.full((B, H), -0.7)][: 1 + (kind == "LSTMCell")]
        carries = {"LSTMCell": jl.LSTMCarry, "GRUCell": jl.GRUCarry}
        carry = carries.get(kind, jl.ElmanCarry)(*states[::-1])
    ours, params = from_keras(cell)
    x = inputs("lstm")[:, 0]
    close(ours.step(params, jax.tree.map(jnp.asarray, carry), x)[1], cell(x, states)[0])


def test_a_list_of_layers_and_cells_of_both_directions():
    both = bidirectional(stacked(True, dtype="float64", **QUICK), dtype="float64")
    both.build((None, None, 5))
    exact(both)
    layer, params = from_keras([make("lstm"), both])
    cells = jl.stack(jl.lstm(H), jl.gru(6))
    assert layer is jl.stack(jl.lstm(H), jl.bidirectional(cells, cells))
    xs = inputs("lstm")
    close(run(layer, params, xs), both(make("lstm")(xs)))


@pytest.mark.parametrize(
    ("cell", "dtype"),
    matrices.crossed([jl.gru(H), jl.elman(H)], ["bfloat16", "float16"]),
    ids=str,
)
def test_half_precision_is_kept(cell, dtype):
    params = zeros_of(cell, jnp.ones(D, dtype))
    params = jax.tree.map(lambda a: a + np.arange(H).astype(dtype) / 3, params)
    made = to_keras(cell, params)
    assert {w.dtype for w in made.weights} == {dtype}
    back = from_keras(made)[1]
    assert {a.dtype for a in back} == {jnp.dtype(dtype)}
    jax.tree.map(np.testing.assert_array_equal, back, params)
