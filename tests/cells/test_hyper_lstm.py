import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl
from tests import matrices, papers

KEY = jax.random.key(0)
GATES = range(4)  # i, f, g, o


def sigmoid(a):
    return 1 / (1 + math.exp(-a))


@functools.cache
def begun(**options):
    """Params as they are drawn, a carry away from zero, and a step of input."""
    cell = jl.hyper_lstm(5, hyper=3, embedding=2, **options)
    x = jnp.asarray(papers.normal(3, 4))
    params = jax.jit(cell.init)(KEY, x)
    return params, papers.away_from_zero(KEY, cell.initial_carry(params, x)), x


def as_lstm(params, carry, x, scale):
    """c' and h' of an LSTM with the main weights times `scale`."""
    weights = jl.LSTMParams(scale * params.w_x, scale * params.w_h, params.b)
    return jl.lstm_step(weights, jl.LSTMCarry(carry.c, carry.h), x)[0]


def test_one_unit_by_hand():
    """Gate g alone is rescaled; the smaller LSTM has one unit, and z two entries."""
    of = lambda values, *shape: jnp.array(values, jnp.float64).reshape(shape)
    cell = jl.hyper_lstm(1, hyper=1, embedding=2)
    zeros = jax.tree.map(jnp.zeros_like, papers.drawn(cell, of(0, 1), KEY))
    small = zeros.small._replace(w_x=of([[0] * 4, [0, 0, 1.1, 0]], 2, 4, 1).at[0, 2].set(0.3))
    params = zeros._replace(
        w_x=of([0, 0, 2.0, 0], 1, 4, 1),
        w_h=of([0, 0, -0.4, 0], 1, 4, 1),
        b=of([0, 0, 0.25, 0], 4, 1),
        small=small._replace(w_h=of([0, 0, -0.2, 0], 1, 4, 1), b=of([0, 0, 0.1, 0], 4, 1)),
        w_z=zeros.w_z.at[0, :, 2].set(of([[0.7, -0.3], [0.2, 0.9], [1.5, 0.4]], 3, 2)),
        b_z=zeros.b_z.at[:, 2].set(of([[1, 0.5], [-1, 2]], 2, 2)),
        w_d=zeros.w_d.at[:, 2, :, 0].set(of([[0.6, 0.8], [0.3, -0.5], [0.2, 1.2]], 3, 2)),
    )
    carry = jl.HyperLSTMCarry(*map(jnp.array, ([0.8], [-0.6], [0.5], [0.9])))
    carry, y = jl.hyper_lstm_step(params, carry, jnp.array([1.5]))
    c_hat = 0.5 * 0.5 + 0.5 * math.tanh(0.3 * -0.6 + 1.1 * 1.5 - 0.2 * 0.9 + 0.1)
    h_hat = 0.5 * math.tanh(c_hat)
    d_h = 0.6 * (0.7 * h_hat + 1) + 0.8 * (-0.3 * h_hat + 0.5)
    d_x = 0.3 * (0.2 * h_hat - 1) - 0.5 * (0.9 * h_hat + 2)
    bias = 0.2 * 1.5 * h_hat + 1.2 * 0.4 * h_hat + 0.25
    c = 0.5 * 0.8 + 0.5 * math.tanh(d_h * -0.4 * -0.6 + d_x * 2.0 * 1.5 + bias)
    expected = jl.HyperLSTMCarry(*([v] for v in (c, 0.5 * math.tanh(c), c_hat, h_hat)))
    for name in expected._fields:
        np.testing.assert_allclose(getattr(carry, name), getattr(expected, name), rtol=1e-14)
    assert y is carry.h


def test_it_begins_as_an_lstm_with_a_tenth_of_the_weights():
    params, carry, x = begun()
    actual, _ = jl.hyper_lstm_step(params, carry, x)
    papers.close(jl.LSTMCarry(actual.c, actual.h), as_lstm(params, carry, x, 0.1), 1e-14)
    assert params.norm is None
    np.testing.assert_array_equal(params.b, np.array([0, 1, 0, 0])[:, None] * np.ones(5))


def test_scaling_vectors_of_one_leave_the_weights_alone():
    params, carry, x = begun()
    params = params._replace(w_d=params.w_d * 10)
    actual, _ = jl.hyper_lstm_step(params, carry, x)
    papers.close(jl.LSTMCarry(actual.c, actual.h), as_lstm(params, carry, x, 1.0), 1e-14)


def test_the_smaller_lstm_is_an_lstm_of_h_and_x():
    params, carry, x = begun()
    small = carry._replace(c=carry.small_c, h=carry.small_h)
    seen = jnp.concatenate([carry.h, x], -1)
    of_small = jl.LSTMParams(*params.small[:3])
    expected, _ = jl.lstm_step(of_small, jl.LSTMCarry(small.c, small.h), seen)
    actual, _ = jl.hyper_lstm_step(params, carry, x)
    papers.close(jl.LSTMCarry(actual.small_c, actual.small_h), expected, 1e-14)


def test_the_weights_of_a_step_see_that_step_s_input():
    """With W_x of zero only the smaller LSTM reads x, and h' changes with it all the same."""
    params, carry, x = begun()
    params = papers.away_from_zero(KEY, params)._replace(w_x=jnp.zeros_like(params.w_x))
    of = lambda x: jl.hyper_lstm_step(params, carry, x)[1]
    assert float(jnp.abs(of(x) - of(x + 1)).max()) > 1e-3


def test_layer_normalisation_takes_the_scale_of_the_weights_away():
    params, carry, x = begun(layer_norm=True)
    scaled = lambda by: params._replace(w_d=params.w_d * by)
    of = lambda params: jl.hyper_lstm_step(params, carry, x)
    papers.close(of(scaled(1e4)), of(scaled(3e4)), 1e-8)  # 1e-5 beside a variance of 1e6
    assert float(jnp.abs(of(scaled(1.0))[1] - of(scaled(1e4))[1]).max()) > 1e-6  # and of 1e-2


def test_gains_of_zero_leave_the_biases_of_the_normalisation():
    params, carry, x = begun(layer_norm=True)
    norm = params.norm._replace(gain=0 * params.norm.gain, gain_c=0 * params.norm.gain_c)
    norm = norm._replace(b=norm.b.at[2].set(0.3), b_c=norm.b_c + 0.2)
    actual, _ = jl.hyper_lstm_step(params._replace(norm=norm), carry, x)
    c = sigmoid(1) * carry.c + 0.5 * math.tanh(0.3)  # the forget gate's bias is one
    np.testing.assert_allclose(actual.c, c, rtol=1e-13)
    np.testing.assert_allclose(actual.h, np.full((3, 5), 0.5 * math.tanh(0.2)), rtol=1e-13)


@pytest.mark.parametrize("layer_norm", matrices.few([False, True], long=[False]))
def test_params_begin_as_the_appendix_says(layer_norm):
    options = dict(hyper=40, layer_norm=layer_norm, dtype=jnp.float64)
    params = jax.jit(lambda key: jl.init_hyper_lstm(key, 8, 6, **options))(KEY)
    small = params.small
    for w in (params.w_x, params.w_h, small.w_x, small.w_h):
        for gate in GATES:
            block = w[:, gate] if w.shape[0] >= w.shape[2] else w[:, gate].T
            np.testing.assert_allclose(block.T @ block, np.eye(block.shape[1]), atol=1e-12)
        assert len({float(w[0, gate, 0]) for gate in GATES}) == 4
    assert not params.w_z[:, :2].any()
    np.testing.assert_allclose(params.w_z[:, 2].std(), 0.01, rtol=0.1)  # of 640
    assert (params.b_z == 1).all()
    assert (params.w_d[:2] == 0.1 / 4).all()
    assert not params.w_d[2].any()
    forget = np.array([0, 1, 0, 0])[:, None]
    for part, size in ((params, 6), (small, 40)):
        np.testing.assert_array_equal(part.b, (not layer_norm) * forget * np.ones(size))
        if layer_norm:
            np.testing.assert_array_equal(part.norm.b, forget * np.ones(size))
            assert (part.norm.gain == 1).all()
            assert (part.norm.gain_c == 1).all()
            assert not part.norm.b_c.any()
        else:
            assert part.norm is None


@pytest.mark.parametrize("layer_norm", [False, True])
def test_half_precision_keeps_the_cell_states_in_float32(layer_norm):
    cell = jl.hyper_lstm(5, hyper=3, layer_norm=layer_norm)
    xs = jnp.asarray(papers.normal(6, 3, 4), jnp.bfloat16)
    params = papers.drawn(cell, xs[0], KEY)
    assert {a.dtype for a in jax.tree.leaves(params)} == {jnp.dtype(jnp.bfloat16)}
    carry, ys = jl.scan(cell, params, xs)
    half, full = jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float32)
    assert jax.tree.map(lambda a: a.dtype, tuple(carry)) == (full, half, full, half)
    assert ys.dtype == half
    wide = jax.tree.map(lambda a: a.astype(jnp.float64), (params, xs))
    np.testing.assert_allclose(ys.astype(float), jl.scan(cell, *wide)[1], atol=0.02)  # 8 bits


@pytest.mark.parametrize("size", [0, -1, 2.0, "5", True, None])
def test_sizes_that_are_none_raise(size):
    for name in ("hidden", "hyper", "embedding"):
        with pytest.raises(ValueError, match=f"{name}: expected a positive integer, got {size!r}"):
            jl.hyper_lstm(**{"hidden": 5, name: size})
    for name in ("features", "hidden", "hyper", "embedding"):
        with pytest.raises(ValueError, match=f"{name}: expected a positive integer, got {size!r}"):
            jl.init_hyper_lstm(KEY, **{"features": 4, "hidden": 5, name: size})


def test_integers_as_input_raise():
    with pytest.raises(ValueError, match="x: expected an array of floating-point numbers, got"):
        jl.hyper_lstm(5).init(KEY, jnp.ones(4, int))


def test_shapes_that_do_not_fit_raise():
    params, carry, x = begun()
    with pytest.raises(ValueError, match=r"x: expected 4 features .* got shape \(3, 7\)"):
        jl.hyper_lstm_step(params, carry, jnp.ones((3, 7)))
    for name in carry._fields:
        wrong = carry._replace(**{name: jnp.zeros((2, 5))})
        with pytest.raises(ValueError, match=rf"carry.{name}: expected shape \(3, .\) .* \(2, 5\)"):
            jl.hyper_lstm_step(params, wrong, x)
