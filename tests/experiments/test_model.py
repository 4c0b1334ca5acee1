import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxlstm as jl
from experiments.language_model import config, model

KEY = jax.random.key(0)
SMALL = config.Config(hidden=5, embedding=3, dropout=0.0)


def test_smoothed_labels_are_a_target_spread_over_all_symbols():
    smoothed = dataclasses.replace(SMALL, label_smoothing=0.2)
    params = model.init(SMALL, KEY, symbols=7)
    carry = model.initial_carry(SMALL, params, batch=2)
    tokens, targets = jax.random.randint(KEY, (2, 4, 2), 0, 7)
    _, scores = model.logits(SMALL, params, carry, tokens)
    _, nats, minimised = model.losses(smoothed, params, carry, tokens, targets, None)
    spread = optax.smooth_labels(jax.nn.one_hot(targets, 7), 0.2)
    expected = optax.softmax_cross_entropy(scores, spread)
    np.testing.assert_allclose(minimised, expected, rtol=1e-5)
    picked = jnp.take_along_axis(jax.nn.log_softmax(scores), targets[..., None], -1)[..., 0]
    np.testing.assert_allclose(nats, -picked, rtol=1e-5)
    np.testing.assert_array_equal(*model.losses(SMALL, params, carry, tokens, targets, None)[1:])


@jl.cell
def decaying(hidden):
    """The mean of what it saw, in three copies, from an initial carry that is learnt."""

    def init(key, x):
        return {"first": jnp.arange(1.0, hidden + 1), "w": jnp.ones((x.shape[-1], hidden))}

    def initial_carry(params, x, key=None):
        return jnp.broadcast_to(params["first"], (*x.shape[:-1], 3, hidden))

    def step(params, h, x):
        h = (h + (x @ params["w"])[..., None, :]) / 2
        return h, h.mean(-2)

    return init, initial_carry, step


def narrow(hidden):
    return jl.lstm(hidden - 1)


def test_a_cell_of_ones_own_is_a_layer():
    own = dataclasses.replace(SMALL, cell=f"{__name__}:decaying", layers=2)
    model.check(own)
    params = model.init(own, KEY, symbols=7)
    first = model.initial_carry(own, params, batch=2)
    tokens = jax.random.randint(KEY, (4, 2), 0, 7)
    carry, scores = model.logits(own, params, first, tokens)
    assert scores.shape == (4, 2, 7)
    again = model.restarted(own, params, carry, jnp.array([True, False]))
    for one, before, after in zip(again, first, carry, strict=True):
        np.testing.assert_array_equal(one[0], before[0])
        np.testing.assert_array_equal(one[1], after[1])


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("lstmm", "--cell: expected lstm, peephole, gru, elman or MODULE:NAME, got lstmm"),
        ("nowhere:cell", "--cell: nowhere:cell can't be imported: No module named 'nowhere'"),
        (f"{__name__}:nothing", "has no attribute 'nothing'"),
        (":lstm", "--cell: :lstm can't be imported: Empty module name"),
        ("builtins:str", "--cell: builtins:str makes no Cell of jaxlstm, but '5'"),
        (f"{__name__}:narrow", "not 5 numbers a step"),
    ],
)
def test_what_is_no_cell_is_refused(cell, said):
    with pytest.raises(ValueError, match=said):
        model.check(dataclasses.replace(SMALL, cell=cell))
