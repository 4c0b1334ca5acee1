"""Keras 3 on its JAX backend in float64.

Its own tanh makes float32 of float64, so that it is given JAX's. At a step that is masked out Keras
gives the previous output again and ours is zero: outputs are compared at the others. Both sum the
same products in another order, over at most seven steps of a few units: 1e-12.
"""

import os

import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl
from jaxlstm.interop.keras import from_weights
from tests.parity.agreement import agree_with_gradients, random

os.environ.setdefault("KERAS_BACKEND", "jax")
keras = pytest.importorskip("keras", reason="Keras is not installed: pip install keras==3.15.1")
if keras.backend.backend() != "jax":
    pytest.skip("Keras runs on another backend than JAX", allow_module_level=True)

T, B, D, H = 7, 3, 4, 5
LENGTHS = np.array([T, 0, 4])
MASK = np.array([[0, 1, 1, 0, 1, 1, 0], [1, 1, 0, 0, 1, 0, 1], [0] * 7], bool).T
MASKED = {  # options of our scan, and which steps are valid
    "": ({}, np.ones((T, B), bool)),
    "lengths": ({"lengths": LENGTHS}, np.arange(T)[:, None] < LENGTHS),
    "mask": ({"mask": MASK}, MASK),
}
FLAGS = {"return_sequences": True, "return_state": True}


@keras.saving.register_keras_serializable("parity")  # Bidirectional makes its layers of a config
def tanh(x):
    return jnp.tanh(x)


CELL = {"activation": tanh, "dtype": "float64"}
LAYER = CELL | FLAGS


KINDS = {  # the layer, its options, and our carry of its states
    "lstm": ("LSTM", {}, lambda h, c: jl.LSTMCarry(c, h)),
    "gru": ("GRU", {"reset_after": True}, jl.GRUCarry),
    "gru_reset_before": ("GRU", {"reset_after": False}, jl.GRUResetBeforeCarry),
    "elman": ("SimpleRNN", {}, jl.ElmanCarry),
    "elman relu": ("SimpleRNN", {"activation": "relu"}, jl.ElmanCarry),
}


def states_of(carry):
    return (carry.h, carry.c) if hasattr(carry, "c") else (carry.h,)


def compare(layer, ours, states, masked, *labels, masks=None):
    """`ours(cell, params, states, xs, **options)` gives states as Keras has them, and outputs.

    `masks` are dropout's, of inputs and h, that Keras shall use.
    """
    layer.build((B, T, D))
    weights = [jnp.asarray(v) for v in layer.trainable_variables]
    others = [jnp.asarray(v) for v in layer.non_trainable_variables]
    options, valid = MASKED[masked]
    shown = lambda ys: jnp.where(valid[..., None], ys, 0)

    def theirs(weights, states, xs):
        if masks:
            layer.cell._dropout_mask, layer.cell._recurrent_dropout_mask = masks
        (ys, *last), _ = layer.stateless_call(
            *(weights, others, xs.swapaxes(0, 1)),
            initial_state=states,
            mask=valid.T if options else None,
            training=masks is not None,
        )
        return last, shown(ys.swapaxes(0, 1))

    def run(weights, states, xs):
        last, ys = ours(*from_weights(layer, weights), states, xs, **options)
        return last, shown(ys)

    arguments = random((weights, states, jnp.zeros((T, B, D))), 3)
    cell, option, name = labels
    option = ", ".join(filter(None, [option, masked]))
    labels = dict(cell=cell, options=option, oracle=f"Keras {name}")
    agree_with_gradients(run, theirs, arguments, 1e-12, **labels)


def zeros(kind):
    return [jnp.zeros((B, H))] * (2 if kind == "lstm" else 1)


@pytest.mark.parametrize("masked", MASKED)
@pytest.mark.parametrize("kind", KINDS)
def test_layer(kind, masked):
    name, options, carry = KINDS[kind]

    def ours(cell, params, states, xs, **options):
        last, ys = jl.scan(cell, params, xs, carry(*states), **options)
        return states_of(last), ys

    layer = getattr(keras.layers, name)(H, **LAYER | options)
    factory, _, option = kind.partition(" ")
    compare(layer, ours, zeros(kind), masked, factory, option, name)


@pytest.mark.parametrize(("merge", "masked"), [("concat", "lengths"), ("sum", "mask")])
def test_bidirectional(merge, masked):
    def ours(_, params, states, xs, **options):
        run = lambda params, states, **options: jl.scan(
            jl.lstm(H), params, xs, jl.LSTMCarry(*states[::-1]), **options
        )
        ahead, ys = run(params.forward, states[:2], **options)
        back, zs = run(params.backward, states[2:], reverse=True, **options)
        ys = ys + zs if merge == "sum" else jnp.concatenate([ys, zs], -1)
        return (*states_of(ahead), *states_of(back)), ys

    layer = keras.layers.Bidirectional(keras.layers.LSTM(H, **LAYER), merge, dtype="float64")
    labels = ("lstm", f"both directions, {merge}", "Bidirectional")
    compare(layer, ours, zeros("lstm") * 2, masked, *labels)


def test_bidirectional_layer():
    """From states of zero, the only ones that our layer knows."""

    def ours(layer, params, states, xs, **options):
        carry, ys = layer.apply(params, xs, **options)
        return (*states_of(carry.forward), *states_of(carry.backward)), ys

    ahead = keras.layers.LSTM(H, **LAYER)
    back = keras.layers.GRU(H, go_backwards=True, **LAYER)
    layer = keras.layers.Bidirectional(ahead, "concat", backward_layer=back, dtype="float64")
    compare(layer, ours, None, "mask", "bidirectional", "lstm and gru", "Bidirectional")


@pytest.mark.parametrize("masked", ["lengths", "mask"])
def test_stack(masked):
    def ours(cell, params, states, xs, **options):
        carry = jl.LSTMCarry(*states[0][::-1]), jl.GRUCarry(*states[1])
        last, ys = jl.scan(cell, params, xs, carry, **options)
        return [states_of(part) for part in last], ys

    cells = [keras.layers.LSTMCell(H, **CELL), keras.layers.GRUCell(H, **CELL)]
    cells = keras.layers.StackedRNNCells(cells, dtype="float64")
    layer = keras.layers.RNN(cells, dtype="float64", **FLAGS)
    labels = ("stack", "lstm and gru", "StackedRNNCells")
    compare(layer, ours, [zeros("lstm"), zeros("gru")], masked, *labels)


# Not a GRU's h: Keras drops it in the products alone, ours in z ⊙ h too.
@pytest.mark.parametrize("kind", ["lstm", "elman", "gru", "lstm recurrent", "elman recurrent"])
def test_dropout(kind):
    """With Keras's own masks; where it draws one a gate, with the first for all, as ours."""
    kind, _, recurrent = kind.partition(" ")
    name, options, carry = KINDS[kind]
    rates = {"dropout": 0.4, "recurrent_dropout": 0.4 if recurrent else 0.0}
    layer = getattr(keras.layers, name)(H, **LAYER | options | rates, seed=1)
    inner = layer.cell
    drawn = (
        inner.get_dropout_mask(jnp.zeros((B, D))),
        inner.get_recurrent_dropout_mask(jnp.zeros((B, H))),
    )
    for_all = lambda mask: [mask[0]] * len(mask) if isinstance(mask, list) else mask
    first = lambda mask: mask[0] if isinstance(mask, list) else mask
    masks = jl.DropoutMasks(*map(first, drawn), None)

    def ours(cell, params, states, xs, **options):
        noisy = jl.variational_dropout(cell, 0.4, recurrent=rates["recurrent_dropout"])
        start = jl.DropoutCarry(carry(*states), jl.Persistent(masks))
        last, ys = jl.scan(noisy, params, xs, start, **options)
        return states_of(last.carry), ys

    option = ", ".join(filter(None, [kind, recurrent]))
    labels = ("variational_dropout", option, name)
    compare(layer, ours, zeros(kind), "mask", *labels, masks=tuple(map(for_all, drawn)))
