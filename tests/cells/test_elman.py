import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl
from tests import papers

KEY = jax.random.key(0)
EQUATIONS = {"tanh": papers.elman_tanh, "relu": papers.elman_relu}
LONE = jl.ElmanParams(jnp.array([[0.5]]), jnp.array([[-0.4]]), jnp.array([0.2]))


@pytest.mark.parametrize(("x", "relu"), [(1.5, 1.03), (-2.0, 0.0)])
def test_one_unit_by_hand(x, relu):
    a = 0.5 * x - 0.4 * -0.2 + 0.2
    carry = jl.ElmanCarry(jnp.array([-0.2]))
    np.testing.assert_allclose(jl.elman_step(LONE, carry, jnp.array([x]))[1], [math.tanh(a)], 1e-14)
    after, y = jl.elman_step(LONE, carry, jnp.array([x]), "relu")
    np.testing.assert_allclose(after.h, [relu], rtol=1e-14)
    assert y is after.h


@pytest.mark.parametrize("activation", EQUATIONS)
def test_step_is_the_paper_s_equations(activation):
    cell, x = jl.elman(5, activation=activation), jnp.asarray(papers.normal(2, 3, 4))
    params = papers.drawn(cell, x, KEY)
    carry = papers.away_from_zero(KEY, cell.initial_carry(params, x))
    papers.close(cell.step(params, carry, x), EQUATIONS[activation](params, carry, x), 1e-13)


def test_weights_begin_glorot_uniform_and_orthogonal_and_the_bias_at_zero():
    params = jl.init_elman(KEY, 50, 70, dtype=jnp.float64)
    bound = math.sqrt(6 / (50 + 70))
    assert 0.99 * bound < np.abs(params.w_x).max() <= bound
    np.testing.assert_allclose(np.asarray(params.w_x).std(), bound / math.sqrt(3), rtol=0.03)
    np.testing.assert_allclose(params.w_h @ params.w_h.T, np.eye(70), atol=1e-12)
    assert not params.b.any()


def test_orthogonal_weights_of_either_sign():
    """Haar: the trace has mean 0 and variance 1, the determinant either sign."""
    keys = jax.random.split(KEY, 400)
    w_h = jax.jit(jax.vmap(lambda key: jl.init_elman(key, 1, 3, dtype=jnp.float64).w_h))(keys)
    traces = np.trace(w_h, axis1=1, axis2=2)
    np.testing.assert_allclose([traces.mean(), traces.std()], [0, 1], atol=0.15)
    np.testing.assert_allclose(np.mean(np.linalg.det(w_h) > 0), 0.5, atol=0.1)


@pytest.mark.parametrize("implementation", ["reference", "blocked"])
def test_half_precision_stays_half_precision(implementation):
    cell, xs = jl.elman(5), jnp.asarray(papers.normal(6, 3, 4), jnp.bfloat16)
    params = papers.drawn(cell, xs[0], KEY)
    carry, ys = jl.scan(cell, params, xs, implementation=implementation)
    assert {a.dtype for a in (*params, *carry, ys)} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize("size", [0, -1, 2.0, "5", True, None])
def test_sizes_that_are_none_raise(size):
    with pytest.raises(ValueError, match=f"hidden: expected a positive integer, got {size!r}"):
        jl.elman(size)
    with pytest.raises(ValueError, match="features: expected a positive integer"):
        jl.init_elman(KEY, size, 5)
    with pytest.raises(ValueError, match="hidden: expected a positive integer"):
        jl.init_elman(KEY, 4, size)


def test_an_unknown_activation_raises():
    message = r"activation: expected one of \['tanh', 'relu'\], got 'gelu'"
    with pytest.raises(ValueError, match=message):
        jl.elman(5, activation="gelu")
    with pytest.raises(ValueError, match=message):
        jl.elman_step(LONE, jl.ElmanCarry(jnp.zeros(1)), jnp.ones(1), "gelu")


def test_inputs_that_do_not_fit_raise():
    with pytest.raises(
        ValueError, match="x: expected an array of floating-point numbers, got shape"
    ):
        jl.elman(5).init(KEY, jnp.ones(4, int))
    with pytest.raises(ValueError, match=r"x: expected 1 features .* got shape \(2,\)"):
        jl.elman_step(LONE, jl.ElmanCarry(jnp.zeros(1)), jnp.ones(2))
    with pytest.raises(ValueError, match=r"carry.h: expected shape \(1,\) .* got shape \(3,\)"):
        jl.elman_step(LONE, jl.ElmanCarry(jnp.zeros(3)), jnp.ones(1))
