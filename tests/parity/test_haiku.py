"""Haiku's cores, and its ResetCore."""

import jax
import jax.numpy as jnp
import pytest

import jaxlstm as jl
from jaxlstm.interop.haiku import from_haiku
from tests.parity.agreement import agree_with_gradients, agree_with_steps, random

hk = pytest.importorskip("haiku", reason="Haiku is not installed: pip install dm-haiku==0.0.17")

B, D, H = 3, 4, 5


def convert(weights):
    return from_haiku(weights)[1]


CORES = {
    "LSTM": (jl.lstm(H), ""),
    "GRU": (jl.gru_reset_before(H), ""),
    "VanillaRNN": (jl.elman(H, activation="relu"), "relu"),
}


def state_of(carry):
    return hk.LSTMState(hidden=carry[1], cell=carry[0]) if len(carry) == 2 else carry[0]


def carry_of(state):
    return (state.cell, state.hidden) if isinstance(state, hk.LSTMState) else (state,)


def transform(make):
    """The init and apply of a core."""
    return hk.without_apply_rng(hk.transform(lambda *inputs: make()(*inputs)))


def run_core(make, cell, carry, x, **labels):
    core = transform(make)
    weights = core.init(jax.random.key(0), x, state_of(carry))

    def step(weights, carry, x):
        y, state = core.apply(weights, x, state_of(carry))
        return carry_of(state), y

    agree_with_steps(cell, convert, step, weights, carry, x, **labels)


@pytest.mark.parametrize("name", CORES)
def test_core(name):
    cell, options = CORES[name]
    carry = (jnp.zeros((B, H)),) * (2 if name == "LSTM" else 1)
    labels = dict(oracle=f"Haiku {name}", options=options)
    make = lambda: getattr(hk, name)(H)
    run_core(make, cell, carry, jnp.zeros((B, D)), **labels)


def test_convlstm():
    space, kernel = (6, 4), (3, 2)
    carry = (jnp.zeros((B, *space, H)),) * 2
    labels = dict(oracle="Haiku Conv2DLSTM", options="2D")
    make = lambda: hk.Conv2DLSTM(space, H, kernel)
    x = jnp.zeros((B, *space, D))
    run_core(make, jl.convlstm(H, kernel), carry, x, **labels)


def test_resets():
    core = transform(lambda: hk.ResetCore(hk.LSTM(H)))
    resets = jnp.array([[1, 0, 0], [0, 0, 1], [0, 0, 1], [0, 0, 0], [1, 0, 0]], bool)
    carry = (jnp.zeros((B, H)),) * 2
    weights = core.init(jax.random.key(0), (jnp.zeros((B, D)), resets[0]), state_of(carry))

    def theirs(weights, carry, xs):
        step = lambda state, inputs: core.apply(weights, inputs, state)[::-1]
        state, ys = jax.lax.scan(step, state_of(carry), (xs, resets))
        return carry_of(state), ys

    def ours(weights, carry, xs):
        return jl.scan(jl.lstm(H), convert(weights), xs, jl.LSTMCarry(*carry), resets=resets)

    arguments = random((weights, carry, jnp.zeros((len(resets), B, D))), 3)
    labels = dict(cell="lstm", options="resets", oracle="Haiku ResetCore(LSTM)")
    agree_with_gradients(ours, theirs, arguments, 1e-12, **labels)
