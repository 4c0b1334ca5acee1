import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl
from tests import papers

KEY = jax.random.key(0)
B, D, H = 3, 4, 5


def normal(*shape):
    return jnp.asarray(np.random.default_rng(len(shape)).normal(size=shape))


def carry_of(c, h):
    return jl.PhasedLSTMCarry(jnp.asarray(c), jnp.asarray(h))


def clock(period, shift, ratio, dtype=jnp.float64):
    """Params of a single unit whose new cell state is 1: from zero, its cell state is k."""
    of = lambda value: jnp.array([value], dtype)
    blank, gates = jnp.zeros((1, 4, 1), dtype), jnp.array([500, -500, 500, 500], dtype)
    return jl.PhasedLSTMParams(
        blank, blank, gates[:, None], of(math.log(period)), of(shift), of(ratio)
    )


def openness(params, time, leak):
    x = jl.PhasedLSTMInput(jnp.zeros(1, params.b.dtype), time)
    blank = jnp.zeros(1, params.b.dtype)
    return jl.phased_lstm_step(params, carry_of(blank, blank), x, leak=leak)[0].c[0]


@pytest.mark.parametrize(
    ("time", "k"),
    [(1, 0), (2, 0.5), (3, 1), (4, 0.5), (6, 0.005), (0, 0.009), (22, 0.5), (-18, 0.5)],
)
def test_openness_by_hand(time, k):
    params = clock(period=10, shift=1, ratio=0.4)
    np.testing.assert_allclose(openness(params, jnp.array(time, float), 0.01), k, atol=1e-14)


def test_half_open_is_half_way():
    params = clock(period=10, shift=1, ratio=0.4)
    x = jl.PhasedLSTMInput(jnp.zeros(1), jnp.array(2.0))
    carry, y = jl.phased_lstm_step(params, carry_of([3.0], [-0.5]), x)
    np.testing.assert_allclose(carry.c, [0.5 * 1 + 0.5 * 3], rtol=1e-13)
    np.testing.assert_allclose(carry.h, [0.5 * math.tanh(1) + 0.5 * -0.5], rtol=1e-13)
    assert y is carry.h


def test_closed_without_leak_keeps_the_states_as_they_are():
    params = jl.init_phased_lstm(KEY, D, H, dtype=jnp.float64)
    params = params._replace(log_period=jnp.zeros(H), shift=jnp.zeros(H))
    before = carry_of(normal(B, H), normal(B, H) / 2)
    x = jl.PhasedLSTMInput(normal(B, D), jnp.array([0.5, 3.3, 41.9]))
    carry, _ = jl.phased_lstm(H, leak=0).step(params, before, x)
    jax.tree.map(np.testing.assert_array_equal, carry, before)
    carry, _ = jl.phased_lstm(H).step(params, before, x)
    assert 0 < jnp.abs(carry.c - before.c).max() < 1e-2


def test_fully_open_is_an_lstm():
    params = jl.init_phased_lstm(KEY, D, H, open_ratio=1.0, dtype=jnp.float64)
    middle = params.shift[:1] + jnp.exp(params.log_period[:1]) / 2  # of the first unit's period
    params = params._replace(
        log_period=jnp.full(H, params.log_period[0]), shift=jnp.full(H, params.shift[0])
    )
    x, c, h = normal(B, D), normal(B, H), normal(B, H) / 2
    x_at = jl.PhasedLSTMInput(x, jnp.broadcast_to(middle, B))
    actual, _ = jl.phased_lstm_step(params, carry_of(c, h), x_at)
    expected, _ = jl.lstm_step(jl.LSTMParams(*params[:3]), jl.LSTMCarry(c, h), x)
    np.testing.assert_allclose(actual.c, expected.c, rtol=1e-12)
    np.testing.assert_allclose(actual.h, expected.h, rtol=1e-12)


@pytest.mark.parametrize(("time", "slope"), [(2.0, 5), (4.0, -5), (6.0, 0.01), (-14.0, 0.01)])
def test_the_phase_s_derivatives(time, slope):
    params = clock(period=10, shift=1, ratio=0.4)
    run = jax.jit(jax.grad(lambda params, time: openness(params, time, 0.01), (0, 1)))
    of_params, of_time = run(params, jnp.array(time))  # φ is (t - s) / τ less a whole number
    np.testing.assert_allclose(of_time, slope / 10, rtol=1e-12)
    np.testing.assert_allclose(of_params.shift, [-slope / 10], rtol=1e-12)
    np.testing.assert_allclose(of_params.log_period, [-slope * (time - 1) / 10], rtol=1e-12)


def test_gradients_are_finite_at_the_edges():
    ratios = jnp.array([0.0, -0.1, 1e-12, 0.05, 1.0], jnp.float32)
    params = jax.tree.map(lambda a: a.astype(jnp.float32), jl.init_phased_lstm(KEY, D, H))
    params = params._replace(open_ratio=ratios, log_period=jnp.zeros_like(ratios))
    params = params._replace(shift=jnp.ones_like(ratios))
    times = jnp.array([1.0, 1e-30, 5e6, -5e6], jnp.float32)

    @jax.jit
    @jax.value_and_grad
    def run(arguments):
        params, time = arguments
        x = jl.PhasedLSTMInput(jnp.ones((4, D), jnp.float32), time)
        carry = carry_of(jnp.ones((4, H), jnp.float32), jnp.ones((4, H), jnp.float32))
        return jl.phased_lstm_step(params, carry, x)[1].sum()

    for leaf in jax.tree.leaves(run((params, times))):
        assert jnp.isfinite(leaf).all()


def test_initial_values():
    params = jl.init_phased_lstm(KEY, 4, 100, forget_bias=2.5)
    assert 0 <= params.log_period.min() < 0.4 < 7.6 < params.log_period.max() <= 8
    np.testing.assert_allclose(params.log_period.mean(), 4, atol=1)
    turns = params.shift / jnp.exp(params.log_period)
    assert 0 <= turns.min() < 0.05 < 0.95 < turns.max() <= 1
    assert (params.open_ratio == jnp.float32(0.05)).all()
    assert params.b.sum(1).tolist() == [0, 250, 0, 0]


def test_half_precision_keeps_the_cell_state_and_the_time_in_single():
    cell = jl.phased_lstm(H)
    times = 1001 + jnp.arange(6 * B, dtype=jnp.float32).reshape(6, B)  # 11 bits
    xs = jl.PhasedLSTMInput(normal(6, B, D).astype(jnp.bfloat16), times)
    params = papers.drawn(cell, jax.tree.map(lambda a: a[0], xs), KEY)
    params = params._replace(log_period=jnp.full(H, 1, jnp.bfloat16), open_ratio=params.b[1])
    carry, ys = jl.scan(cell, params, xs)
    assert {a.dtype for a in (*params, carry.h, ys)} == {jnp.dtype(jnp.bfloat16)}
    assert carry.c.dtype == jnp.float32
    wide = jax.tree.map(lambda a: a.astype(jnp.float64), (params, xs))
    np.testing.assert_allclose(ys.astype(float), jl.scan(cell, *wide)[1], atol=0.02)


@pytest.mark.parametrize("size", [0, 2.0, None])
def test_sizes_that_are_none_raise(size):
    with pytest.raises(ValueError, match=f"hidden: expected a positive integer, got {size!r}"):
        jl.phased_lstm(size)
    with pytest.raises(ValueError, match="features: expected a positive integer"):
        jl.init_phased_lstm(KEY, size, 5)
    with pytest.raises(ValueError, match="hidden: expected a positive integer"):
        jl.init_phased_lstm(KEY, 4, size)


def test_rhythms_that_are_none_raise():
    with pytest.raises(ValueError, match=r"leak: expected a number in \[0, 1\], got -0.1"):
        jl.phased_lstm(H, leak=-0.1)
    with pytest.raises(ValueError, match=r"open_ratio: expected a number in \(0, 1\], got 0"):
        jl.init_phased_lstm(KEY, D, H, open_ratio=0)
    for log_periods in ((2, 1), (1,)):
        with pytest.raises(ValueError, match="log_periods: expected the lowest log τ and the"):
            jl.init_phased_lstm(KEY, D, H, log_periods=log_periods)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (jnp.ones((B, D)), "x: expected a PhasedLSTMInput, got shape"),
        (
            jl.PhasedLSTMInput(jnp.ones((B, D), int), jnp.ones(B)),
            "x.values: expected an array of floating-point numbers",
        ),
        (
            jl.PhasedLSTMInput(jnp.ones((B, D)), jnp.arange(B)),
            "x.time: expected an array of floating-point numbers",
        ),
        (
            jl.PhasedLSTMInput(jnp.ones((B, D)), jnp.ones((B, 1))),
            r"x.time: expected shape \(3,\) as x.values has it, got shape \(3, 1\)",
        ),
    ],
)
def test_inputs_that_do_not_fit_raise(x, message):
    params = jl.init_phased_lstm(KEY, D, H)
    with pytest.raises(ValueError, match=message):
        jl.phased_lstm_step(params, carry_of(jnp.zeros((B, H)), jnp.zeros((B, H))), x)
    with pytest.raises(ValueError, match=message):
        jl.phased_lstm(H).init(KEY, x)


def test_shapes_that_do_not_fit_raise():
    params = jl.init_phased_lstm(KEY, D, H)
    x = lambda size: jl.PhasedLSTMInput(jnp.ones((B, size)), jnp.ones(B))
    good, bad = jnp.zeros((B, H)), jnp.zeros((2, H))
    with pytest.raises(ValueError, match=r"x.values: expected 4 features .* got shape \(3, 7\)"):
        jl.phased_lstm_step(params, carry_of(good, good), x(7))
    with pytest.raises(ValueError, match=r"carry.c: expected shape \(3, 5\) .* got shape \(2, 5\)"):
        jl.phased_lstm_step(params, carry_of(bad, good), x(D))
    with pytest.raises(ValueError, match=r"carry.h: expected shape \(3, 5\) .* got shape \(2, 5\)"):
        jl.phased_lstm_step(params, carry_of(good, bad), x(D))
