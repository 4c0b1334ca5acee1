import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl
from tests import papers

KEY = jax.random.key(0)


def sigmoid(a):
    return 1 / (1 + math.exp(-a))


def numbers(c, h):
    return jl.MogrifierLSTMCarry(jnp.array([c]), jnp.array([h]))


def lone(w_x, w_h, b, rounds):
    """Params of a single unit with a single input."""
    of = lambda values, *shape: jnp.array(values, jnp.float64).reshape(shape)
    drawn = tuple(jl.MogrifierRound(of(r, 1, 1)) for r in rounds)
    return jl.MogrifierLSTMParams(of(w_x, 1, 4, 1), of(w_h, 1, 4, 1), of(b, 4, 1), drawn)


def as_lstm(params, carry, x):
    """An LSTM's step with the weights of a Mogrifier LSTM."""
    carry, h = jl.lstm_step(jl.LSTMParams(*params[:3]), jl.LSTMCarry(*carry), x)
    return jl.MogrifierLSTMCarry(*carry), h


def drawn(rounds, rank=None):
    cell, x = jl.mogrifier_lstm(5, rounds=rounds, rank=rank), jnp.asarray(papers.normal(3, 4))
    params = papers.drawn(cell, x, KEY)
    return params, papers.away_from_zero(KEY, cell.initial_carry(params, x)), x


def test_one_unit_and_three_rounds_by_hand():
    params = lone([0.5, -1.0, 2.0, 0.3], [0.1, 0.2, -0.4, 0.7], [0, 1, 0, 0], [0.9, -1.3, 0.6])
    carry, y = jl.mogrifier_lstm_step(params, numbers(0.8, -0.6), jnp.array([1.5]))
    x = 2 * sigmoid(0.9 * -0.6) * 1.5
    h = 2 * sigmoid(-1.3 * x) * -0.6
    x = 2 * sigmoid(0.6 * h) * x
    i, f, o = (
        sigmoid(w * x + u * h + b) for w, u, b in [(0.5, 0.1, 0), (-1, 0.2, 1), (0.3, 0.7, 0)]
    )
    c = f * 0.8 + i * math.tanh(2.0 * x - 0.4 * h)
    np.testing.assert_allclose(carry.c, [c], rtol=1e-14)
    np.testing.assert_allclose(carry.h, [o * math.tanh(c)], rtol=1e-14)
    assert y is carry.h


def test_without_rounds_it_is_the_lstm():
    params, carry, x = drawn(rounds=0)
    assert params.rounds == ()
    papers.close(jl.mogrifier_lstm_step(params, carry, x), as_lstm(params, carry, x), 1e-14)


def test_rounds_whose_matrices_are_zero_change_nothing():
    params, carry, x = drawn(rounds=5)
    none = jax.tree.map(jnp.zeros_like, params.rounds)
    actual = jl.mogrifier_lstm_step(params._replace(rounds=none), carry, x)
    papers.close(actual, as_lstm(params, carry, x), 1e-14)


@pytest.mark.parametrize(
    ("rounds", "times_x", "times_h"),
    [
        ([90], 2, 1.0),
        ([-90], 0, 1.0),
        ([90, 90], 2, 2.0),
        ([90, -90], 2, 0.0),
        ([0, 90, 90], 2, 2.0),
    ],
)
def test_a_gate_doubles_what_it_lets_through_and_shuts_out_the_rest(rounds, times_x, times_h):
    params = lone([0.5, -1.0, 2.0, 0.3], [0.1, 0.2, -0.4, 0.7], [0, 1, 0, 0], rounds)
    actual = jl.mogrifier_lstm_step(params, numbers(0.8, 1.0), jnp.array([1.5]))
    expected = as_lstm(params, numbers(0.8, times_h), jnp.array([times_x * 1.5]))
    papers.close(actual, expected, 1e-14)


def test_two_factors_are_their_product():
    params, carry, x = drawn(rounds=5, rank=2)
    whole = tuple(jl.MogrifierRound(w @ up) for w, up in params.rounds)
    actual = jl.mogrifier_lstm_step(params, carry, x)
    papers.close(actual, jl.mogrifier_lstm_step(params._replace(rounds=whole), carry, x), 1e-14)


def test_rounds_take_turns_and_begin_glorot_uniform():
    params = jl.init_mogrifier_lstm(KEY, 50, 70, rounds=3, dtype=jnp.float64)
    assert [w.shape for w, up in params.rounds] == [(70, 50), (50, 70), (70, 50)]
    for w, up in params.rounds:
        assert up is None
        np.testing.assert_allclose(w.std(), math.sqrt(2 / (50 + 70)), rtol=0.03)
    assert len({float(w.sum()) for w, _ in params.rounds}) == 3
    factors = jl.init_mogrifier_lstm(KEY, 50, 70, rounds=2, rank=6).rounds
    assert [(w.shape, up.shape) for w, up in factors] == [
        ((70, 6), (6, 50)),
        ((50, 6), (6, 70)),
    ]


def test_biases_begin_at_zero_and_the_forget_gate_s_at_one():
    b = jl.init_mogrifier_lstm(KEY, 4, 5).b
    np.testing.assert_array_equal(b, np.array([0, 1, 0, 0])[:, None] * np.ones(5))
    assert (jl.init_mogrifier_lstm(KEY, 4, 5, forget_bias=2.5).b[1] == 2.5).all()


@pytest.mark.parametrize("rank", [None, 2])
def test_half_precision_keeps_the_cell_state_in_float32(rank):
    cell, xs = jl.mogrifier_lstm(5, rank=rank), jnp.asarray(papers.normal(6, 3, 4), jnp.bfloat16)
    params = papers.drawn(cell, xs[0], KEY)
    assert {a.dtype for a in jax.tree.leaves(params)} == {jnp.dtype(jnp.bfloat16)}
    carry, ys = jl.scan(cell, params, xs)
    assert (carry.c.dtype, carry.h.dtype, ys.dtype) == (jnp.float32, jnp.bfloat16, jnp.bfloat16)
    wide = jax.tree.map(lambda a: a.astype(jnp.float64), (params, xs))
    np.testing.assert_allclose(ys.astype(float), jl.scan(cell, *wide)[1], atol=0.02)  # 8 bits


@pytest.mark.parametrize("size", [0, -1, 2.0, "5", True, None])
def test_sizes_that_are_none_raise(size):
    with pytest.raises(ValueError, match=f"hidden: expected a positive integer, got {size!r}"):
        jl.mogrifier_lstm(size)
    with pytest.raises(ValueError, match="features: expected a positive integer"):
        jl.init_mogrifier_lstm(KEY, size, 5)
    with pytest.raises(ValueError, match="hidden: expected a positive integer"):
        jl.init_mogrifier_lstm(KEY, 4, size)


def test_rounds_and_ranks_that_do_not_fit_raise():
    for rounds in (-1, 101, 2.0, True, None):
        with pytest.raises(ValueError, match=r"rounds: expected an integer in \[0, 100\], got"):
            jl.mogrifier_lstm(5, rounds=rounds)
        with pytest.raises(ValueError, match=r"rounds: expected an integer in \[0, 100\], got"):
            jl.init_mogrifier_lstm(KEY, 4, 5, rounds=rounds)
    with pytest.raises(ValueError, match="rank: expected a positive integer, got 0"):
        jl.mogrifier_lstm(5, rank=0)


def test_integers_as_input_raise():
    with pytest.raises(ValueError, match="x: expected an array of floating-point numbers, got"):
        jl.mogrifier_lstm(5).init(KEY, jnp.ones(4, int))


def test_shapes_that_do_not_fit_raise():
    params, zeros = jl.init_mogrifier_lstm(KEY, 4, 5), jnp.zeros((3, 5))
    with pytest.raises(ValueError, match=r"x: expected 4 features .* got shape \(3, 7\)"):
        jl.mogrifier_lstm_step(params, jl.MogrifierLSTMCarry(zeros, zeros), jnp.ones((3, 7)))
    for name in ("c", "h"):
        carry = jl.MogrifierLSTMCarry(zeros, zeros)._replace(**{name: zeros[:2]})
        with pytest.raises(ValueError, match=rf"carry.{name}: expected shape \(3, 5\) .* \(2, 5\)"):
            jl.mogrifier_lstm_step(params, carry, jnp.ones((3, 4)))
