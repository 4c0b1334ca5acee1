import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl
from tests import matrices, papers

KEY = jax.random.key(0)
SPACES = {"1D": ((4,), (6,)), "2D": ((3, 2), (4, 5)), "3D": ((1, 2, 3), (3, 2, 4))}
C, F = 3, 5


def normal(*shape):
    return jnp.asarray(np.random.default_rng(len(shape)).normal(size=shape))


def test_three_places_by_hand():
    w, u, b = [0.5, -1.0, 2.0, 0.3], [0.1, 0.2, -0.4, 0.6], [0.05, 1.0, -0.2, -0.3]
    scales = np.array([2.0, 3.0, 5.0])  # of the places before, here and after
    kernel = lambda w: jnp.asarray(np.multiply.outer(scales, w)).reshape(3, 1, 4, 1)
    peephole = np.arange(9.0).reshape(3, 3) / 10
    params = jl.ConvLSTMParams(
        kernel(w), kernel(u), jnp.asarray(b)[:, None], jnp.asarray(peephole)[..., None]
    )
    x, c, h = np.array([1.5, 0.1, -0.4]), np.array([0.8, -0.3, 0.2]), np.array([-0.7, 0.6, 0.9])
    at = lambda values: jnp.asarray(values)[:, None]
    carry, y = jl.convlstm_step(params, jl.ConvLSTMCarry(at(c), at(h)), at(x))
    around = lambda v: np.array(
        [3 * v[0] + 5 * v[1], 2 * v[0] + 3 * v[1] + 5 * v[2], 2 * v[1] + 3 * v[2]]
    )
    i, f, g, o = (w[n] * around(x) + u[n] * around(h) + b[n] for n in range(4))
    sigmoid = lambda a: 1 / (1 + np.exp(-a))
    c = sigmoid(f + peephole[1] * c) * c + sigmoid(i + peephole[0] * c) * np.tanh(g)
    h = sigmoid(o + peephole[2] * c) * np.tanh(c)
    np.testing.assert_allclose(carry.c[:, 0], c, rtol=1e-13)
    np.testing.assert_allclose(carry.h[:, 0], h, rtol=1e-13)
    assert y is carry.h


@pytest.mark.parametrize("space", [(6,), (2, 3), (2, 1, 3)])
def test_a_kernel_of_one_is_an_lstm_at_each_place(space):
    plain = jl.init_lstm(KEY, C, F, dtype=jnp.float64)
    wide = lambda w: w.reshape((1,) * len(space) + w.shape)
    params = jl.ConvLSTMParams(wide(plain.w_x), wide(plain.w_h), plain.b)
    x, c, h = normal(2, *space, C), normal(2, *space, F), normal(2, *space, F) / 2
    actual, _ = jl.convlstm_step(params, jl.ConvLSTMCarry(c, h), x)
    expected, _ = jl.lstm_step(plain, jl.LSTMCarry(c, h), x)
    np.testing.assert_allclose(actual.c, expected.c, rtol=1e-12)
    np.testing.assert_allclose(actual.h, expected.h, rtol=1e-12)


def test_peepholes_begin_at_zero_and_each_place_has_its_own():
    kernel, space = SPACES["2D"]
    cell, plain = jl.convlstm(F, kernel, peephole=True), jl.convlstm(F, kernel)
    x = normal(2, *space, C)
    params = cell.init(KEY, x)
    assert params.peephole.shape == (3, *space, F)
    jax.tree.map(np.testing.assert_array_equal, params[:3], plain.init(KEY, x)[:3])
    carry = jl.ConvLSTMCarry(normal(2, *space, F), normal(2, *space, F))
    same = cell.step(params, carry, x)[1] - plain.step(params._replace(peephole=None), carry, x)[1]
    assert jnp.abs(same).max() < 1e-15
    changed = params._replace(peephole=params.peephole.at[:, 1, 2].add(1.0))
    moved = cell.step(changed, carry, x)[1] != cell.step(params, carry, x)[1]
    assert moved[:, 1, 2].all()
    assert moved.sum() == moved[:, 1, 2].sum()


@pytest.mark.parametrize("name", matrices.few(SPACES, long=["1D", "3D"]))
def test_recurrent_columns_are_orthonormal(name):
    kernel, _ = SPACES[name]
    w_h = jl.init_convlstm(KEY, C, 8, kernel, dtype=jnp.float64).w_h
    assert w_h.shape == (*kernel, 8, 4, 8)
    for gate in range(4):
        flat = w_h[..., gate, :].reshape(-1, 8)
        np.testing.assert_allclose(flat.T @ flat, np.eye(8), atol=1e-12)
    assert len(np.unique(np.asarray(w_h[..., 0, :, 0]))) == math.prod(kernel) * 4


def test_input_weights_are_glorot_uniform_and_biases_zero_but_one():
    params = jl.init_convlstm(KEY, 20, 30, (3, 5), forget_bias=2.5, dtype=jnp.float64)
    assert params.w_x.shape == (3, 5, 20, 4, 30)
    bound = math.sqrt(6 / (15 * (20 + 30)))
    assert 0.99 * bound < np.abs(params.w_x).max() <= bound
    np.testing.assert_allclose(params.w_x.std(), bound / math.sqrt(3), rtol=0.03)
    assert params.b.sum(1).tolist() == [0, 2.5 * 30, 0, 0]


@pytest.mark.parametrize("peephole", [False, True])
def test_half_precision_keeps_the_cell_state_in_single(peephole):
    kernel, space = SPACES["2D"]
    cell, xs = jl.convlstm(F, kernel, peephole=peephole), normal(6, 2, *space, C)
    xs = xs.astype(jnp.bfloat16)
    params = papers.drawn(cell, xs[0], KEY)
    carry, ys = jl.scan(cell, params, xs)
    assert {a.dtype for a in (*jax.tree.leaves(params), carry.h, ys)} == {jnp.dtype(jnp.bfloat16)}
    assert carry.c.dtype == jnp.float32
    wide = jax.tree.map(lambda a: a.astype(jnp.float64), (params, xs))
    np.testing.assert_allclose(ys.astype(float), jl.scan(cell, *wide)[1], atol=0.02)
    loss = lambda params: jl.scan(cell, params, xs)[1].astype(float).sum()
    gradient = jax.jit(jax.grad(loss))(params)
    assert {a.dtype for a in jax.tree.leaves(gradient)} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize("size", [0, 2.0, None])
def test_sizes_that_are_none_raise(size):
    with pytest.raises(ValueError, match=f"channels: expected a positive integer, got {size!r}"):
        jl.convlstm(size, (3,))
    with pytest.raises(ValueError, match="kernel: expected a positive integer"):
        jl.convlstm(7, (3, size))
    with pytest.raises(ValueError, match="features: expected a positive integer"):
        jl.init_convlstm(KEY, size, 5, (3,))
    with pytest.raises(ValueError, match="channels: expected a positive integer"):
        jl.init_convlstm(KEY, 4, size, (3,))


@pytest.mark.parametrize("kernel", [3, (), (3, 3, 3, 3)])
def test_kernels_that_are_none_raise(kernel):
    with pytest.raises(ValueError, match="kernel: expected a tuple of 1, 2 or 3 sizes, got"):
        jl.convlstm(5, kernel)
    with pytest.raises(ValueError, match="kernel: expected a tuple of 1, 2 or 3 sizes, got"):
        jl.init_convlstm(KEY, 4, 5, kernel)


def test_shapes_that_do_not_fit_raise():
    kernel, space = SPACES["2D"]
    params = jl.init_convlstm(KEY, C, F, kernel, peephole=space)
    zeros = lambda *space: jnp.zeros((2, *space, F))
    good = jl.ConvLSTMCarry(zeros(*space), zeros(*space))
    x = jnp.ones((2, *space, C))
    with pytest.raises(ValueError, match=r"x: expected 3 features .* got shape \(2, 4, 5, 7\)"):
        jl.convlstm_step(params, good, jnp.ones((2, *space, 7)))
    with pytest.raises(ValueError, match="x: expected 2 axes of space and one of channels, got"):
        jl.convlstm_step(params, good, jnp.ones((2, C)))
    with pytest.raises(ValueError, match="x: expected 2 axes of space and one of channels, got"):
        jl.convlstm(F, kernel).init(KEY, jnp.ones((2, C)))
    with pytest.raises(ValueError, match="x: expected an array of floating-point numbers"):
        jl.convlstm(F, kernel).init(KEY, x.astype(int))
    for name in ("c", "h"):
        with pytest.raises(ValueError, match=rf"carry.{name}: expected shape \(2, 4, 5, 5\)"):
            jl.convlstm_step(params, good._replace(**{name: zeros(4, 4)}), x)
    small = jl.ConvLSTMCarry(zeros(4, 4), zeros(4, 4))
    with pytest.raises(ValueError, match=r"params.peephole: expected shape \(3, 4, 4, 5\) as x"):
        jl.convlstm_step(params, small, x[:, :, :4])
    with pytest.raises(ValueError, match=r"peephole: expected the 2 sizes of space, got \(4,\)"):
        jl.init_convlstm(KEY, C, F, kernel, peephole=(4,))
