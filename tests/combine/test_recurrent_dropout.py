import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl
from tests import papers

KEY = jax.random.key(0)
X = jnp.asarray(papers.normal(3, 4))
MASK = jnp.array([0.0, 2.0, 2.0, 0.0, 1.0])


def case(cell):
    params = papers.drawn(cell, X, KEY)
    return params, papers.away_from_zero(KEY, cell.initial_carry(params, X))


@pytest.mark.parametrize("peephole", [False, True])
def test_lstm_s_candidate_alone_is_dropped(peephole):
    cell = jl.lstm(5, peephole=peephole)
    params, carry = case(cell)
    params = params._replace(b=params.b.at[3].set(60.0))  # o = 1
    last, h = jl.recurrent_dropout_step(cell, params, carry, X, jnp.broadcast_to(MASK, (3, 5)))
    (c, _), _ = papers.lstm(params, carry, X)
    none = params._replace(w_x=params.w_x.at[:, 2].set(0), w_h=params.w_h.at[:, 2].set(0))
    (kept, _), _ = papers.lstm(none._replace(b=none.b.at[2].set(0)), carry, X)  # f ⊙ c
    expected = kept + MASK * (c - kept)
    np.testing.assert_allclose(last.c, expected, rtol=1e-12)
    np.testing.assert_allclose(h, np.tanh(expected), rtol=1e-9)


def test_gru_s_candidate_alone_is_dropped():
    cell = jl.gru(5)
    params, carry = case(cell)
    last, _ = jl.recurrent_dropout_step(cell, params, carry, X, jnp.broadcast_to(MASK, (3, 5)))
    new, _ = papers.gru(params, carry, X)
    shut = params._replace(b=params.b.at[2].set(0), b_n=jnp.zeros(5))
    shut = shut._replace(w_x=shut.w_x.at[:, 2].set(0), w_h=shut.w_h.at[:, 2].set(0))
    kept, _ = papers.gru(shut, carry, X)  # z ⊙ h
    np.testing.assert_allclose(last.h, kept.h + MASK * (new.h - kept.h), rtol=1e-12)


def test_as_much_is_dropped_as_was_asked_for_and_scaled_up():
    x = jnp.zeros((3000, 4), jnp.float64)
    params = jax.tree.map(jnp.zeros_like, jl.init_lstm(KEY, 4, 5, dtype=jnp.float64))
    params = params._replace(b=params.b.at[0].set(60).at[2].set(60))  # i = g = 1
    noisy = jl.recurrent_dropout(jl.lstm(5), 0.25)
    last, _ = noisy.step(params, noisy.initial_carry(params, x, KEY), x)
    np.testing.assert_allclose(np.unique(last.carry.c.round(12)), [0, (4 / 3).__round__(12)])
    np.testing.assert_allclose((last.carry.c == 0).mean(), 0.25, atol=0.02)


def test_noise_is_new_at_each_step_and_for_each_sequence():
    noisy = jl.recurrent_dropout(jl.lstm(5), 0.5)
    params = jax.tree.map(jnp.zeros_like, jl.init_lstm(KEY, 4, 5))
    params = params._replace(b=params.b.at[0].set(60).at[1].set(-60).at[2].set(1))  # c' = m ⊙ g
    ys = jl.scan(noisy, params, jnp.zeros((6, 3, 4)), key=KEY)[1]
    assert len(np.unique(ys.reshape(18, 5) == 0, axis=0)) > 9


def test_half_precision_stays_half_precision():
    xs = jnp.asarray(papers.normal(6, 3, 4), jnp.bfloat16)
    params = jl.init_lstm(KEY, 4, 5, dtype=xs.dtype)
    last, ys = jl.scan(jl.recurrent_dropout(jl.lstm(5), 0.5), params, xs, key=KEY)
    assert (last.carry.c.dtype, last.carry.h.dtype, ys.dtype) == (jnp.float32, xs.dtype, xs.dtype)


def test_what_can_not_be_dropped_raises():
    for bare in (jl.elman(5), jl.mgu(5), jl.stack(jl.lstm(5))):
        with pytest.raises(ValueError, match="bare: expected a cell with a candidate to drop"):
            jl.recurrent_dropout(bare, 0.5)
    with pytest.raises(ValueError, match="bare: expected a Cell, got 5"):
        jl.recurrent_dropout(5, 0.5)
    with pytest.raises(ValueError, match=r"rate: expected a number in \[0, 1\), got 1"):
        jl.recurrent_dropout(jl.gru(5), 1)
    with pytest.raises(ValueError, match=r"key: gru\(5\) with recurrent_dropout draws masks"):
        jl.scan(jl.recurrent_dropout(jl.gru(5), 0.1), case(jl.gru(5))[0], X[None])
