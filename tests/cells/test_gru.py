import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl
from tests import papers

KEY = jax.random.key(0)
GATES = range(3)  # r, z, n


def lone(w_x, w_h, b, b_n):
    """Params of a single unit with a single input."""
    of = lambda values, *shape: jnp.array(values, jnp.float64).reshape(shape)
    return jl.GRUParams(of(w_x, 1, 3, 1), of(w_h, 1, 3, 1), of(b, 3, 1), of(b_n, 1))


def sigmoid(a):
    return 1 / (1 + math.exp(-a))


def test_one_unit_by_hand():
    params = lone([0.5, -1.0, 2.0], [0.1, 0.2, -0.4], [0.05, 1.0, -0.2], 0.6)
    carry, y = jl.gru_step(params, jl.GRUCarry(jnp.array([-0.7])), jnp.array([1.5]))
    r = sigmoid(0.5 * 1.5 + 0.1 * -0.7 + 0.05)
    z = sigmoid(-1.0 * 1.5 + 0.2 * -0.7 + 1.0)
    n = math.tanh(2.0 * 1.5 - 0.2 + r * (-0.4 * -0.7 + 0.6))
    np.testing.assert_allclose(carry.h, [(1 - z) * n + z * -0.7], rtol=1e-14)
    assert y is carry.h


def test_step_is_the_paper_s_equations():
    cell, x = jl.gru(5), jnp.asarray(papers.normal(2, 3, 4))
    params = papers.drawn(cell, x, KEY)
    carry = papers.away_from_zero(KEY, cell.initial_carry(params, x))
    papers.close(cell.step(params, carry, x), papers.gru(params, carry, x), 1e-13)


def test_a_wide_open_update_gate_keeps_the_state():
    params = lone([0] * 3, [0] * 3, [0, 50, 3], 1)
    carry, _ = jl.gru_step(params, jl.GRUCarry(jnp.array([0.3])), jnp.zeros(1))
    np.testing.assert_allclose(carry.h, [0.3], rtol=1e-14)


def test_a_closed_reset_gate_hides_the_product_and_its_bias():
    params = lone([0] * 3, [9] * 3, [-500, -500, 0.2], 7)
    carry, _ = jl.gru_step(params, jl.GRUCarry(jnp.array([0.3])), jnp.zeros(1))
    np.testing.assert_allclose(carry.h, [math.tanh(0.2)], rtol=1e-14)


def test_each_gate_s_recurrent_block_is_orthogonal_by_itself():
    w_h = jl.init_gru(KEY, 4, 32, dtype=jnp.float64).w_h
    for gate in GATES:
        np.testing.assert_allclose(w_h[:, gate].T @ w_h[:, gate], np.eye(32), atol=1e-12)
    assert len({float(w_h[0, gate, 0]) for gate in GATES}) == 3


def test_input_weights_are_glorot_uniform_and_biases_zero():
    params = jl.init_gru(KEY, 50, 70, dtype=jnp.float64)
    bound = math.sqrt(6 / (50 + 70))
    for gate in GATES:
        block = np.asarray(params.w_x[:, gate])
        assert 0.99 * bound < np.abs(block).max() <= bound
        np.testing.assert_allclose(block.std(), bound / math.sqrt(3), rtol=0.03)
    assert not params.b.any()
    assert not params.b_n.any()


@pytest.mark.parametrize("implementation", ["reference", "blocked"])
def test_half_precision_stays_half_precision(implementation):
    cell, xs = jl.gru(5), jnp.asarray(papers.normal(6, 3, 4), jnp.bfloat16)
    params = papers.drawn(cell, xs[0], KEY)
    run = lambda params, xs: jl.scan(cell, params, xs, implementation=implementation)
    carry, ys = run(params, xs)
    assert {a.dtype for a in (*params, *carry, ys)} == {jnp.dtype(jnp.bfloat16)}
    wide = jax.tree.map(lambda a: a.astype(jnp.float64), (params, xs))
    np.testing.assert_allclose(ys.astype(float), run(*wide)[1], atol=0.02)  # h has 8 bits


@pytest.mark.parametrize("size", [0, -1, 2.0, "5", True, None])
def test_sizes_that_are_none_raise(size):
    with pytest.raises(ValueError, match=f"hidden: expected a positive integer, got {size!r}"):
        jl.gru(size)
    with pytest.raises(ValueError, match="features: expected a positive integer"):
        jl.init_gru(KEY, size, 5)
    with pytest.raises(ValueError, match="hidden: expected a positive integer"):
        jl.init_gru(KEY, 4, size)


def test_integers_as_input_raise():
    with pytest.raises(
        ValueError, match="x: expected an array of floating-point numbers, got shape"
    ):
        jl.gru(5).init(KEY, jnp.ones(4, int))


def test_shapes_that_do_not_fit_raise():
    params = jl.init_gru(KEY, 4, 5)
    with pytest.raises(ValueError, match=r"x: expected 4 features .* got shape \(3, 7\)"):
        jl.gru_step(params, jl.GRUCarry(jnp.zeros((3, 5))), jnp.ones((3, 7)))
    with pytest.raises(ValueError, match=r"carry.h: expected shape \(3, 5\) .* got shape \(2, 5\)"):
        jl.gru_step(params, jl.GRUCarry(jnp.zeros((2, 5))), jnp.ones((3, 4)))
