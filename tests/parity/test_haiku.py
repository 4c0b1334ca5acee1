"""Haiku's cores, and its ResetCore."""

import jax
import jax.numpy as jnp
import pytest

import jaxlstm as jl
from tests.parity.agreement import agree_with_gradients, agree_with_steps, random

hk = pytest.importorskip("haiku", reason="Haiku is not installed: pip install dm-haiku==0.0.17")

B, D, H = 3, 4, 5


def split(w, gates):
    return w.reshape(*w.shape[:-1], gates, H)


def lstm(weights):
    """One matrix for x above h; gates i, g, f, o; the step adds 1 to the forget gate."""
    w, b = (split(weights["lstm/linear"][leaf], 4)[..., [0, 2, 1, 3], :] for leaf in "wb")
    return jl.LSTMParams(w[:D], w[D:], b.at[1].add(1))


def gru(weights):
    """Gates z, r, n with z and 1 - z the other way round: σ(-a) = 1 - σ(a)."""
    turn = lambda w: split(w, 3)[..., [1, 0, 2], :] * jnp.array([1, -1, 1])[:, None]
    return jl.GRUResetBeforeParams(*(turn(weights["gru"][leaf]) for leaf in ("w_i", "w_h", "b")))


def elman(weights):
    x, h = weights["vanilla_rnn/linear"], weights["vanilla_rnn/linear_1"]
    return jl.ElmanParams(x["w"], h["w"], x["b"] + h["b"])


def convlstm(weights):
    """Gates as in the LSTM, of two convolutions with a bias each."""
    x, h = (weights[f"conv2_dlstm/{name}"] for name in ("input_to_hidden", "hidden_to_hidden"))
    order = lambda w: split(w, 4)[..., [0, 2, 1, 3], :]
    return jl.ConvLSTMParams(order(x["w"]), order(h["w"]), order(x["b"] + h["b"]).at[1].add(1))


CORES = {
    "LSTM": (jl.lstm(H), lstm, ""),
    "GRU": (jl.gru_reset_before(H), gru, ""),
    "VanillaRNN": (jl.elman(H, activation="relu"), elman, "relu"),
}


def state_of(carry):
    return hk.LSTMState(hidden=carry[1], cell=carry[0]) if len(carry) == 2 else carry[0]


def carry_of(state):
    return (state.cell, state.hidden) if isinstance(state, hk.LSTMState) else (state,)


def transform(make):
    """The init and apply of a core."""
    return hk.without_apply_rng(hk.transform(lambda *inputs: make()(*inputs)))


def run_core(make, cell, convert, carry, x, **labels):
    core = transform(make)
    weights = core.init(jax.random.key(0), x, state_of(carry))

    def step(weights, carry, x):
        y, state = core.apply(weights, x, state_of(carry))
        return carry_of(state), y

    agree_with_steps(cell, convert, step, weights, carry, x, **labels)


@pytest.mark.parametrize("name", CORES)
def test_core(name):
    cell, convert, options = CORES[name]
    carry = (jnp.zeros((B, H)),) * (2 if name == "LSTM" else 1)
    labels = dict(oracle=f"Haiku {name}", options=options)
    make = lambda: getattr(hk, name)(H)
    run_core(make, cell, convert, carry, jnp.zeros((B, D)), **labels)


def test_convlstm():
    space, kernel = (6, 4), (3, 2)
    carry = (jnp.zeros((B, *space, H)),) * 2
    labels = dict(oracle="Haiku Conv2DLSTM", options="2D")
    make = lambda: hk.Conv2DLSTM(space, H, kernel)
    x = jnp.zeros((B, *space, D))
    run_core(make, jl.convlstm(H, kernel), convlstm, carry, x, **labels)


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
        return jl.scan(jl.lstm(H), lstm(weights), xs, jl.LSTMCarry(*carry), resets=resets)

    arguments = random((weights, carry, jnp.zeros((len(resets), B, D))), 3)
    labels = dict(cell="lstm", options="resets", oracle="Haiku ResetCore(LSTM)")
    agree_with_gradients(ours, theirs, arguments, 1e-12, **labels)
