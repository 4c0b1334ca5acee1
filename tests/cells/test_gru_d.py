import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl
from tests import papers
from tests.papers import irregular

KEY = jax.random.key(0)
T, B, D, H = 6, 3, 4, 5


def sigmoid(a):
    return 1 / (1 + math.exp(-a))


def lone(w_x, w_m, w_h, b, decay_x, decay_h, mean):
    """Params of a single unit with a single variable; a decay is its weight and bias."""
    of = lambda values, *shape: jnp.array(values, jnp.float64).reshape(shape)
    gates = (of(w, 1, 3, 1) for w in (w_x, w_m, w_h))
    decays = (of(a, *s) for d in (decay_x, decay_h) for a, s in zip(d, [(-1,), (1,)], strict=True))
    w_decay_x, b_decay_x, w_decay_h, b_decay_h = decays
    return jl.GRUDParams(
        *gates, of(b, 3, 1), w_decay_x, b_decay_x, w_decay_h[None], b_decay_h, of(mean, 1)
    )


def lone_input(value, observed, interval):
    return jl.GRUDInput(*(jnp.array([a], jnp.float64) for a in (value, observed, interval)))


def series(seed=0, dtype=float):
    """A batch of series with NaN where nothing is observed, and params and a carry to match."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)
    observed = rng.uniform(size=(T, B, D)) < 0.5
    times = jnp.cumsum(jnp.abs(draw(T, B)), 0)
    intervals = jl.observation_intervals(observed, times)
    xs = jl.GRUDInput(jnp.where(observed, draw(T, B, D), jnp.nan), jnp.asarray(observed), intervals)
    params = jl.init_gru_d(KEY, D, H, dtype=dtype)
    params = jax.tree.map(lambda a: a + 0.3 * draw(*a.shape), params)
    return params, xs, jl.GRUDCarry(draw(B, H), draw(B, D))


@pytest.mark.parametrize("observed", [0, 1])
def test_one_unit_by_hand(observed):
    params = lone(
        [0.5, -1.0, 2.0], [0.3, 0.2, -0.6], [0.1, 0.2, -0.4], [0.05, 1.0, -0.2],
        (0.4, -0.1), (0.2, 0.3), 37.0,
    )  # fmt: skip
    carry = jl.GRUDCarry(jnp.array([-0.7]), jnp.array([36.0]))
    carry, y = jl.gru_d_step(params, carry, lone_input(38.5, observed, 2.0))
    gamma_x, gamma_h = math.exp(-(0.4 * 2 - 0.1)), math.exp(-(0.2 * 2 + 0.3))
    x = 38.5 if observed else gamma_x * 36.0 + (1 - gamma_x) * 37.0
    h = gamma_h * -0.7
    r = sigmoid(0.5 * x + 0.3 * observed + 0.1 * h + 0.05)
    z = sigmoid(-1.0 * x + 0.2 * observed + 0.2 * h + 1.0)
    n = math.tanh(2.0 * x - 0.6 * observed - 0.4 * (r * h) - 0.2)
    np.testing.assert_allclose(carry.h, [(1 - z) * h + z * n], rtol=1e-13)
    assert carry.last.tolist() == [38.5 if observed else 36.0]
    assert y is carry.h


def test_a_series_with_missing_values_is_the_paper_s_equations():
    params, xs, carry = series()
    last, ys = jl.scan(jl.gru_d(H), params, xs, carry)
    of = lambda tree, *at: jax.tree.map(lambda a: np.asarray(a)[at], tree)
    for n in range(B):
        state = of(carry, n)
        for t in range(T):
            state, y = irregular.gru_d(of(params, ...), state, of(xs, t, n))
            np.testing.assert_allclose(ys[t, n], y, rtol=1e-12)
        np.testing.assert_allclose(last.last[n], state.last, rtol=1e-12)


def test_what_is_not_observed_reaches_no_value_and_no_gradient():
    params, xs, carry = series()
    assert jnp.isnan(xs.values).any()

    @jax.jit
    def run(params, values, carry):
        ys = lambda *a: jl.scan(jl.gru_d(H), a[0], xs._replace(values=a[1]), a[2])
        out, pull = jax.vjp(ys, params, values, carry)
        return out, pull(out)

    actual = run(params, xs.values, carry)
    expected = run(params, jnp.where(xs.observed, xs.values, 1e6), carry)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)
    assert not any(jnp.isnan(a).any() for a in jax.tree.leaves(actual))
    of_values = actual[1][1]
    assert ((of_values != 0) == xs.observed).all()


def test_booleans_are_zero_and_one():
    params, xs, carry = series()
    numbers = xs._replace(observed=xs.observed.astype(float))
    run = lambda xs: jl.scan(jl.gru_d(H), params, xs, carry)
    jax.tree.map(np.testing.assert_array_equal, run(xs), run(numbers))


def test_all_observed_at_once_is_a_gru():
    plain = jl.init_gru_reset_before(KEY, D, H, dtype=jnp.float64)
    params = jl.init_gru_d(KEY, D, H, dtype=jnp.float64)
    params = params._replace(w_x=plain.w_x, w_h=plain.w_h, b=plain.b, w_m=0 * params.w_m)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(B, D)))
    h = jnp.linspace(-1, 1, B * H).reshape(B, H)
    carry, _ = jl.gru_d_step(
        params, jl.GRUDCarry(h, x - 7), jl.GRUDInput(x, jnp.ones((B, D)), jnp.zeros((B, D)))
    )
    flipped = jnp.array([1, -1, 1])[:, None]  # its z is our 1 - z
    plain = jax.tree.map(lambda a: a * flipped, plain)
    expected, _ = jl.gru_reset_before_step(plain, jl.GRUResetBeforeCarry(h), x)
    np.testing.assert_allclose(carry.h, expected.h, rtol=1e-13)
    np.testing.assert_array_equal(carry.last, x)


@pytest.mark.parametrize(("interval", "taken_for"), [(0.0, 0.3), (1e3, 5.0)])
def test_a_missing_value_goes_from_the_last_one_to_the_mean(interval, taken_for):
    no = [0, 0, 0]
    params = lone([0, 0, 1], no, no, [0, 500, 0], (1.0, 0.0), (0.0, 0.0), 5.0)
    carry = jl.GRUDCarry(jnp.zeros(1), jnp.array([0.3]))
    _, y = jl.gru_d_step(params, carry, lone_input(math.nan, 0, interval))
    np.testing.assert_allclose(y, [math.tanh(taken_for)], rtol=1e-13)


def test_a_variable_never_observed_is_its_mean_at_any_interval():
    params = jl.init_gru_d(KEY, D, H, mean=[1.0, 2.0, 3.0, 4.0], dtype=jnp.float64)
    blank = lambda interval: jl.GRUDInput(
        jnp.full((B, D), jnp.nan), jnp.zeros((B, D)), jnp.full((B, D), interval)
    )
    cell = jl.gru_d(H)
    carry = cell.initial_carry(params, blank(0.0))
    np.testing.assert_array_equal(carry.last, np.tile([1.0, 2.0, 3.0, 4.0], (B, 1)))
    ys = [cell.step(params, carry, blank(interval))[1] for interval in (0.0, 9.0)]
    np.testing.assert_allclose(*ys, rtol=1e-13)


def test_intervals_by_hand():
    times = jnp.array([0, 0.1, 0.6, 1.6, 2.2, 2.5, 3.1])
    observed = jnp.array([[1, 1, 0, 1, 0, 1, 1], [0, 1, 1, 0, 0, 0, 1]]).T
    expected = [[0, 0.1, 0.5, 1.5, 0.6, 0.9, 0.6], [0, 0.1, 0.5, 1.0, 1.6, 1.9, 2.5]]
    actual = jl.observation_intervals(observed, times)
    np.testing.assert_allclose(actual.T, expected, atol=1e-15)


def test_intervals_with_batch_axes_are_the_recurrence():
    rng = np.random.default_rng(0)
    observed, times = (
        rng.uniform(size=(T, 2, B, D)) < 0.4,
        np.cumsum(rng.uniform(size=(T, 2, B)), 0),
    )
    expected = np.zeros((T, 2, B, D))
    for t in range(1, T):
        since = (times[t] - times[t - 1])[..., None]
        expected[t] = np.where(observed[t - 1], since, since + expected[t - 1])
    actual = jl.observation_intervals(jnp.asarray(observed), jnp.asarray(times))
    np.testing.assert_allclose(actual, expected, atol=1e-14)
    assert jl.observation_intervals(jnp.ones((0, B, D)), jnp.ones((0, B))).shape == (0, B, D)


def test_decays_begin_where_they_can_be_learned():
    params = jl.init_gru_d(KEY, 50, 70)
    for w, bound in ((params.w_decay_x, 1), (params.w_decay_h, 1 / 50)):
        assert 0 <= w.min() < 0.1 * bound < 0.9 * bound < w.max() <= bound
    assert not any(a.any() for a in (params.b, params.b_decay_x, params.b_decay_h, params.mean))
    assert params.w_m.std() > 0.1


def test_half_precision_stays_half_precision():
    _, xs, _ = series(dtype=jnp.float32)
    xs = xs._replace(values=xs.values.astype(jnp.bfloat16))
    cell = jl.gru_d(H)
    params = papers.drawn(cell, jax.tree.map(lambda a: a[0], xs), KEY)
    carry, ys = jl.scan(cell, params, xs)
    assert {a.dtype for a in (*params, *carry, ys)} == {jnp.dtype(jnp.bfloat16)}
    wide = lambda tree: jax.tree.map(lambda a: a.astype(bool if a.dtype == bool else float), tree)
    np.testing.assert_allclose(wide(ys), jl.scan(cell, wide(params), wide(xs))[1], atol=0.03)


@pytest.mark.parametrize("size", [0, 2.0, None])
def test_sizes_that_are_none_raise(size):
    with pytest.raises(ValueError, match=f"hidden: expected a positive integer, got {size!r}"):
        jl.gru_d(size)
    with pytest.raises(ValueError, match="features: expected a positive integer"):
        jl.init_gru_d(KEY, size, 5)
    with pytest.raises(ValueError, match="hidden: expected a positive integer"):
        jl.init_gru_d(KEY, 4, size)


def test_a_mean_of_another_size_raises():
    with pytest.raises(ValueError, match=r"mean: expected shape \(4,\) .* got shape \(3,\)"):
        jl.init_gru_d(KEY, 4, 5, mean=jnp.zeros(3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": jnp.ones((B, D), int)}, "x.values: expected an array of floating-point"),
        ({"interval": jnp.ones((B, D), int)}, "x.interval: expected an array of floating-point"),
        ({"observed": jnp.ones((B, 1))}, r"x.observed: expected shape \(3, 4\) as x.values"),
        ({"interval": jnp.ones(B)}, r"x.interval: expected shape \(3, 4\) as x.values"),
    ],
)
def test_inputs_that_do_not_fit_raise(change, message):
    x = jl.GRUDInput(*[jnp.ones((B, D))] * 3)._replace(**change)
    params = jl.init_gru_d(KEY, D, H)
    carry = jl.GRUDCarry(jnp.zeros((B, H)), jnp.zeros((B, D)))
    with pytest.raises(ValueError, match=message):
        jl.gru_d_step(params, carry, x)
    with pytest.raises(ValueError, match=message):
        jl.gru_d(H).init(KEY, x)


def test_shapes_that_do_not_fit_raise():
    params, cell = jl.init_gru_d(KEY, D, H), jl.gru_d(H)
    x = lambda size: jl.GRUDInput(*[jnp.ones((B, size))] * 3)
    carry = lambda h, d: jl.GRUDCarry(jnp.zeros((B, h)), jnp.zeros((B, d)))
    with pytest.raises(ValueError, match=r"x.values: expected 4 features .* got shape \(3, 7\)"):
        cell.step(params, carry(H, 7), x(7))
    with pytest.raises(ValueError, match=r"carry.h: expected shape \(3, 5\) .* got shape \(3, 6\)"):
        cell.step(params, carry(6, D), x(D))
    with pytest.raises(ValueError, match=r"carry.last: expected shape \(3, 4\) .* got shape"):
        cell.step(params, carry(H, 1), x(D))
    with pytest.raises(ValueError, match="x: expected a GRUDInput, got shape"):
        cell.init(KEY, jnp.ones((B, D)))
    with pytest.raises(ValueError, match="times: expected an array of floating-point"):
        jl.observation_intervals(jnp.ones((T, D)), jnp.arange(T))
    with pytest.raises(ValueError, match=r"observed: expected the axes of times, \(6,\), and one"):
        jl.observation_intervals(jnp.ones(T), jnp.ones(T))
