"""Equinox's cells, which take no batch axis."""

import jax
import jax.numpy as jnp
import pytest

import jaxlstm as jl
from jaxlstm.interop.equinox import from_equinox
from tests.parity.agreement import agree_with_steps

eqx = pytest.importorskip("equinox", reason="Equinox is not installed: pip install equinox==0.13.8")

B, D, H = 3, 4, 5
X = jnp.zeros((B, D))


def convert(weights):
    return from_equinox(weights)[1]


def test_lstm():
    def step(weights, carry, x):
        h, c = weights(x, carry[::-1])
        return (c, h), h

    weights = eqx.nn.LSTMCell(D, H, dtype=jnp.float64, key=jax.random.key(0))
    carry = (jnp.zeros((B, H)),) * 2
    agree_with_steps(jl.lstm(H), convert, step, weights, carry, X, oracle="Equinox LSTMCell")


def test_gru():
    weights = eqx.nn.GRUCell(D, H, dtype=jnp.float64, key=jax.random.key(0))
    step = lambda weights, h, x: (weights(x, h),) * 2
    h = jnp.zeros((B, H))
    agree_with_steps(jl.gru(H), convert, step, weights, h, X, oracle="Equinox GRUCell")
