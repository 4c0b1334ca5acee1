import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl
from tests import papers

KEY = jax.random.key(0)
B, D, H = 3, 4, 5
INTERVALS = jnp.array([0.0, 3.0, 400.0])


def sigmoid(a):
    return 1 / (1 + math.exp(-a))


def normal(*shape):
    return jnp.asarray(np.random.default_rng(len(shape)).normal(size=shape))


def carry_of(c, h):
    return jl.TimeAwareLSTMCarry(jnp.asarray(c), jnp.asarray(h))


def test_one_unit_by_hand():
    of = lambda values, *shape: jnp.array(values, jnp.float64).reshape(shape)
    w, u, b = [0.5, -1.0, 2.0, 0.3], [0.1, 0.2, -0.4, 0.6], [0.05, 1.0, -0.2, -0.3]
    params = jl.TimeAwareLSTMParams(
        of(w, 1, 4, 1), of(u, 1, 4, 1), of(b, 4, 1), of(1.3, 1, 1), of(-0.2, 1)
    )
    interval = math.e**2 - math.e  # the logarithm is 2
    carry, y = jl.time_aware_lstm_step(
        params,
        carry_of([0.8], [-0.7]),
        jl.TimeAwareLSTMInput(jnp.array([1.5]), jnp.array(interval)),
    )
    i, f, g, o = (w[n] * 1.5 + u[n] * -0.7 + b[n] for n in range(4))
    short = math.tanh(1.3 * 0.8 - 0.2)
    c = sigmoid(f) * (0.8 - short + short / 2) + sigmoid(i) * math.tanh(g)
    np.testing.assert_allclose(carry.c, [c], rtol=1e-13)
    np.testing.assert_allclose(carry.h, [sigmoid(o) * math.tanh(c)], rtol=1e-13)
    assert y is carry.h


@pytest.mark.parametrize("interval", [0.0, -5.0])
def test_no_time_between_steps_is_an_lstm(interval):
    params = jl.init_time_aware_lstm(KEY, D, H, dtype=jnp.float64)
    params = params._replace(b_short=normal(H))
    x, c, h = normal(B, D), normal(B, H), normal(B, H) / 2
    x_at = jl.TimeAwareLSTMInput(x, jnp.full(B, interval))
    actual, _ = jl.time_aware_lstm_step(params, carry_of(c, h), x_at)
    expected, _ = jl.lstm_step(jl.LSTMParams(*params[:3]), jl.LSTMCarry(c, h), x)
    np.testing.assert_allclose(actual.c, expected.c, rtol=1e-13)
    np.testing.assert_allclose(actual.h, expected.h, rtol=1e-13)


def test_the_time_before_a_first_step_is_no_matter_to_a_fresh_cell():
    cell = jl.time_aware_lstm(H)
    at = lambda interval: jl.TimeAwareLSTMInput(normal(B, D), jnp.full(B, interval))
    params = cell.init(KEY, at(0.0))
    carry = cell.initial_carry(params, at(0.0))
    ys = [cell.step(params, carry, at(interval))[1] for interval in (0.0, 500.0)]
    np.testing.assert_array_equal(*ys)


def test_only_the_short_term_memory_fades():
    blank = lambda *shape: jnp.zeros(shape)
    gates = jnp.array([-500.0, 500, 0, 0])[:, None]  # the cell state passes on as it is
    params = jl.TimeAwareLSTMParams(
        blank(1, 4, 1), blank(1, 4, 1), gates, jnp.ones((1, 1)), blank(1)
    )
    x = jl.TimeAwareLSTMInput(jnp.zeros((B, 1)), INTERVALS)
    carry, _ = jl.time_aware_lstm_step(params, carry_of(jnp.full((B, 1), 2.0), blank(B, 1)), x)
    short, kept = np.tanh(2.0), 1 / np.log(np.e + INTERVALS)
    np.testing.assert_allclose(carry.c[:, 0], 2 - short + kept * short, rtol=1e-13)


def test_initial_values():
    params = jl.init_time_aware_lstm(KEY, 50, 70, forget_bias=2.5, dtype=jnp.float64)
    bound = math.sqrt(6 / (70 + 70))
    assert 0.99 * bound < np.abs(params.w_short).max() <= bound
    assert not params.b_short.any()
    assert params.b.sum(1).tolist() == [0, 2.5 * 70, 0, 0]


def test_half_precision_keeps_the_cell_state_and_the_time_in_single():
    cell, times = jl.time_aware_lstm(H), jnp.tile(INTERVALS.astype(jnp.float32), (6, 1))
    xs = jl.TimeAwareLSTMInput(normal(6, B, D).astype(jnp.bfloat16), times)
    params = papers.drawn(cell, jax.tree.map(lambda a: a[0], xs), KEY)
    carry, ys = jl.scan(cell, params, xs)
    assert {a.dtype for a in (*params, carry.h, ys)} == {jnp.dtype(jnp.bfloat16)}
    assert carry.c.dtype == jnp.float32
    wide = jax.tree.map(lambda a: a.astype(jnp.float64), (params, xs))
    np.testing.assert_allclose(ys.astype(float), jl.scan(cell, *wide)[1], atol=0.02)


@pytest.mark.parametrize("size", [0, 2.0, None])
def test_sizes_that_are_none_raise(size):
    with pytest.raises(ValueError, match=f"hidden: expected a positive integer, got {size!r}"):
        jl.time_aware_lstm(size)
    with pytest.raises(ValueError, match="features: expected a positive integer"):
        jl.init_time_aware_lstm(KEY, size, 5)
    with pytest.raises(ValueError, match="hidden: expected a positive integer"):
        jl.init_time_aware_lstm(KEY, 4, size)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (jnp.ones((B, D)), "x: expected a TimeAwareLSTMInput, got shape"),
        (
            jl.TimeAwareLSTMInput(jnp.ones((B, D), int), INTERVALS),
            "x.values: expected an array of floating-point numbers",
        ),
        (
            jl.TimeAwareLSTMInput(jnp.ones((B, D)), jnp.arange(B)),
            "x.interval: expected an array of floating-point numbers",
        ),
        (
            jl.TimeAwareLSTMInput(jnp.ones((B, D)), INTERVALS[:, None]),
            r"x.interval: expected shape \(3,\) as x.values has it, got shape \(3, 1\)",
        ),
    ],
)
def test_inputs_that_do_not_fit_raise(x, message):
    params = jl.init_time_aware_lstm(KEY, D, H)
    with pytest.raises(ValueError, match=message):
        jl.time_aware_lstm_step(params, carry_of(jnp.zeros((B, H)), jnp.zeros((B, H))), x)
    with pytest.raises(ValueError, match=message):
        jl.time_aware_lstm(H).init(KEY, x)


def test_shapes_that_do_not_fit_raise():
    params = jl.init_time_aware_lstm(KEY, D, H)
    x = lambda size: jl.TimeAwareLSTMInput(jnp.ones((B, size)), INTERVALS)
    good, bad = jnp.zeros((B, H)), jnp.zeros((2, H))
    with pytest.raises(ValueError, match=r"x.values: expected 4 features .* got shape \(3, 7\)"):
        jl.time_aware_lstm_step(params, carry_of(good, good), x(7))
    with pytest.raises(ValueError, match=r"carry.c: expected shape \(3, 5\) .* got shape \(2, 5\)"):
        jl.time_aware_lstm_step(params, carry_of(bad, good), x(D))
    with pytest.raises(ValueError, match=r"carry.h: expected shape \(3, 5\) .* got shape \(2, 5\)"):
        jl.time_aware_lstm_step(params, carry_of(good, bad), x(D))
