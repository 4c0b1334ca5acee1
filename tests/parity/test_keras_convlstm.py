"""Keras 3's ConvLSTM layers on its JAX backend in float64.

Its own tanh makes float32 of float64, so that it is given JAX's. Both sum the same products in
another order, over five steps of a few channels: 1e-12.
"""

import math
import os

import jax.numpy as jnp
import pytest

import jaxlstm as jl
from jaxlstm.interop.keras import from_weights
from tests.parity.agreement import agree_with_gradients, random

os.environ.setdefault("KERAS_BACKEND", "jax")
keras = pytest.importorskip("keras", reason="Keras is not installed: pip install keras==3.15.1")
if keras.backend.backend() != "jax":
    pytest.skip("Keras runs on another backend than JAX", allow_module_level=True)

T, B, C, F = 5, 2, 3, 4
CASES = {  # the kernel, and the shape of space
    "1D": ((3,), (6,)),
    "1D, even kernel": ((4,), (6,)),
    "2D": ((3, 5), (4, 6)),
    "2D, even kernel": ((2, 3), (4, 5)),
    "3D": ((3, 1, 2), (3, 2, 4)),
}


@pytest.mark.parametrize("name", CASES)
def test_layer(name):
    kernel, space = CASES[name]
    factory = f"ConvLSTM{len(kernel)}D"
    layer = getattr(keras.layers, factory)(
        *(F, kernel),
        padding="same",
        activation=jnp.tanh,
        return_sequences=True,
        return_state=True,
        dtype="float64",
    )
    layer.build((B, T, *space, C))
    others = [jnp.asarray(v) for v in layer.non_trainable_variables]

    def theirs(weights, states, xs):
        xs = xs.swapaxes(0, 1)
        (ys, *last), _ = layer.stateless_call(weights, others, xs, initial_state=states)
        return last, ys.swapaxes(0, 1)

    def ours(weights, states, xs):
        cell, params = from_weights(layer, weights)
        last, ys = jl.scan(cell, params, xs, jl.ConvLSTMCarry(*states[::-1]))
        return [last.h, last.c], ys

    weights = random([jnp.asarray(v) for v in layer.trainable_variables], 3)
    scale = 1 / math.sqrt(math.prod(kernel) * F)  # keeps the gates from their limits
    states, xs = random(([jnp.zeros((B, *space, F))] * 2, jnp.zeros((T, B, *space, C))), 4)
    arguments = ([scale * w for w in weights], states, xs)
    labels = dict(cell="convlstm", options=name, oracle=f"Keras {factory}")
    agree_with_gradients(ours, theirs, arguments, 1e-12, **labels)
