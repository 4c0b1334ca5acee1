"""Every cell under every law of `jaxlstm.testing`."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest

import jaxlstm as jl
from jaxlstm import testing

STEP = jax.ShapeDtypeStruct((3, 4), jnp.float64)  # (B, D)


class MGUParams(NamedTuple):
    w: jax.Array  # (D + H, 2, H)  gates f, n
    start: jax.Array  # (H,)  the carry before the first step, learned


@jl.cell
def mgu(hidden: int):
    """Minimal gated unit (Zhou et al. 2016, arXiv:1603.09420), somebody's own: a step alone."""

    def init(key, x):
        shape = (x.shape[-1] + hidden, 2, hidden)
        return MGUParams(0.5 * jax.random.normal(key, shape, x.dtype), jnp.ones(hidden, x.dtype))

    def initial_carry(params, x, key=None):
        return jnp.broadcast_to(params.start, (*x.shape[:-1], hidden))

    def step(params, h, x):
        dense = lambda h, w: jnp.concatenate([x, h], -1) @ w
        f = jax.nn.sigmoid(dense(h, params.w[:, 0]))
        h = (1 - f) * h + f * jnp.tanh(dense(f * h, params.w[:, 1]))
        return h, h

    return init, initial_carry, step


CELLS = {
    "lstm": lambda: jl.lstm(5),
    "lstm peephole": lambda: jl.lstm(5, peephole=True),
    "gru": lambda: jl.gru(5),
    "elman tanh": lambda: jl.elman(5),
    "elman relu": lambda: jl.elman(5, activation="relu"),
    "stack": lambda: jl.stack(jl.lstm(5), jl.gru(4)),
    "stack peephole": lambda: jl.stack(jl.elman(3), jl.lstm(5, peephole=True)),
    "dropout": lambda: jl.variational_dropout(jl.lstm(5), 0.3),
    "dropout everywhere": lambda: jl.variational_dropout(
        jl.lstm(5), 0.3, recurrent=0.3, outputs=0.3
    ),
    "mgu": lambda: mgu(5),
}


@pytest.mark.parametrize("law", testing.LAWS)
@pytest.mark.parametrize("name", CELLS)
def test_law(name, law):
    law(CELLS[name](), jax.random.key(1), STEP)


@pytest.mark.parametrize("name", CELLS)
def test_equal_calls_give_the_same_cell(name):
    assert CELLS[name]() is CELLS[name]()
