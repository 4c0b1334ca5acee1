import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl
from tests import papers

KEY = jax.random.key(0)
GATES = range(4)  # i, f, g, o


def lone(w_x, w_h, b, peephole=None):
    """Params of a single unit with a single input."""
    of = lambda values, *shape: jnp.array(values, jnp.float64).reshape(shape)
    peephole = None if peephole is None else of(peephole, 3, 1)
    return jl.LSTMParams(of(w_x, 1, 4, 1), of(w_h, 1, 4, 1), of(b, 4, 1), peephole)


def numbers(c, h):
    return jl.LSTMCarry(jnp.array([c], jnp.float64), jnp.array([h], jnp.float64))


def sigmoid(a):
    return 1 / (1 + math.exp(-a))


def test_one_unit_by_hand():
    params = lone([0.5, -1.0, 2.0, 0.3], [0.1, 0.2, -0.4, 0.7], [0.05, 1.0, -0.2, 0.4])
    carry, y = jl.lstm_step(params, numbers(0.8, -0.6), jnp.array([1.5]))
    i = sigmoid(0.5 * 1.5 + 0.1 * -0.6 + 0.05)
    f = sigmoid(-1.0 * 1.5 + 0.2 * -0.6 + 1.0)
    g = math.tanh(2.0 * 1.5 - 0.4 * -0.6 - 0.2)
    o = sigmoid(0.3 * 1.5 + 0.7 * -0.6 + 0.4)
    c = f * 0.8 + i * g
    np.testing.assert_allclose(carry.c, [c], rtol=1e-14)
    np.testing.assert_allclose(carry.h, [o * math.tanh(c)], rtol=1e-14)
    assert y is carry.h


def test_peepholes_by_hand_and_the_output_gate_sees_the_new_cell_state():
    params = lone([0] * 4, [0] * 4, [0] * 4, peephole=[0.3, -0.7, 1.1])
    carry, _ = jl.lstm_step(
        params._replace(b=params.b.at[2].set(5.0)), numbers(0.8, 0), jnp.ones(1)
    )
    c = sigmoid(-0.7 * 0.8) * 0.8 + sigmoid(0.3 * 0.8) * math.tanh(5.0)
    np.testing.assert_allclose(carry.c, [c], rtol=1e-14)
    np.testing.assert_allclose(carry.h, [sigmoid(1.1 * c) * math.tanh(c)], rtol=1e-14)


@pytest.mark.parametrize("peephole", [False, True])
def test_step_is_the_paper_s_equations(peephole):
    cell, x = jl.lstm(5, peephole=peephole), jnp.asarray(papers.normal(2, 3, 4))
    params = papers.drawn(cell, x, KEY)
    carry = papers.away_from_zero(KEY, cell.initial_carry(params, x))
    papers.close(cell.step(params, carry, x), papers.lstm(params, carry, x), 1e-13)


def test_peepholes_of_zero_are_none():
    x = jnp.asarray(papers.normal(3, 4))
    params = jl.lstm(5, peephole=True).init(KEY, x)
    carry = papers.away_from_zero(KEY, jl.lstm(5).initial_carry(params, x))
    with_them = jl.lstm_step(params, carry, x)
    papers.close(with_them, jl.lstm_step(params._replace(peephole=None), carry, x), 1e-15)


def test_no_forget_bias_hides_in_the_step():
    carry, _ = jl.lstm_step(lone([0] * 4, [0] * 4, [0] * 4), numbers(1.0, 0.0), jnp.zeros(1))
    np.testing.assert_allclose(carry.c, [0.5], rtol=1e-15)


def test_biases_begin_at_zero_and_the_forget_gate_s_at_one():
    b = jl.init_lstm(KEY, 4, 5).b
    np.testing.assert_array_equal(b, np.array([0, 1, 0, 0])[:, None] * np.ones(5))
    assert (jl.init_lstm(KEY, 4, 5, forget_bias=2.5).b[1] == 2.5).all()


def test_each_gate_s_recurrent_block_is_orthogonal_by_itself():
    w_h = jl.init_lstm(KEY, 4, 32, dtype=jnp.float64).w_h
    for gate in GATES:
        np.testing.assert_allclose(w_h[:, gate].T @ w_h[:, gate], np.eye(32), atol=1e-12)
    assert len({float(w_h[0, gate, 0]) for gate in GATES}) == 4


def test_input_weights_are_glorot_uniform_gate_by_gate():
    w_x = np.asarray(jl.init_lstm(KEY, 50, 70, dtype=jnp.float64).w_x)
    bound = math.sqrt(6 / (50 + 70))
    for gate in GATES:
        assert 0.99 * bound < np.abs(w_x[:, gate]).max() <= bound
        np.testing.assert_allclose(w_x[:, gate].std(), bound / math.sqrt(3), rtol=0.03)
        np.testing.assert_allclose(w_x[:, gate].mean(), 0, atol=0.01)


def test_peepholes_begin_at_zero_where_asked_for():
    assert jl.init_lstm(KEY, 4, 5).peephole is None
    np.testing.assert_array_equal(jl.init_lstm(KEY, 4, 5, peephole=True).peephole, np.zeros((3, 5)))


@pytest.mark.parametrize(
    ("half", "implementation"),
    [(jnp.bfloat16, "reference"), (jnp.bfloat16, "blocked"), (jnp.float16, "blocked")],
)
def test_half_precision_keeps_the_cell_state_in_float32(half, implementation):
    cell, xs = jl.lstm(5, peephole=True), jnp.asarray(papers.normal(6, 3, 4), half)
    params = papers.drawn(cell, xs[0], KEY)
    assert {a.dtype for a in jax.tree.leaves(params)} == {jnp.dtype(half)}
    initial = cell.initial_carry(params, xs[0])
    run = lambda params: jl.scan(cell, params, xs, initial, implementation=implementation)
    dtypes = lambda tree: jax.tree.map(lambda a: a.dtype, tree)
    carry, ys = run(params)
    assert dtypes(carry) == dtypes(initial) == (jnp.dtype(jnp.float32), jnp.dtype(half))
    assert ys.dtype == half
    gradient = jax.grad(lambda params: run(params)[1].astype(jnp.float32).sum())(params)
    assert dtypes(gradient) == dtypes(params)


@pytest.mark.parametrize("implementation", ["reference", "blocked"])
def test_half_precision_does_not_lose_small_additions_to_the_cell_state(implementation):
    """In bfloat16 the sum would stand still near 2, where 1/128 is half of a unit."""
    params = lone([0] * 4, [0] * 4, [0, 50, math.atanh(1 / 64), 0])
    params = jax.tree.map(lambda a: a.astype(jnp.bfloat16), params)
    xs = jnp.zeros((1024, 1), jnp.bfloat16)
    carry, _ = jl.scan(jl.lstm(1), params, xs, implementation=implementation)
    np.testing.assert_allclose(carry.c, [8.0], rtol=0.01)


def test_float32_stays_float32_with_float64_enabled():
    cell, xs = jl.lstm(5), jnp.ones((6, 3, 4), jnp.float32)
    carry, ys = jl.scan(cell, papers.drawn(cell, xs[0], KEY), xs)
    assert {carry.c.dtype, carry.h.dtype, ys.dtype} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("size", [0, -1, 2.0, "5", True, None])
def test_sizes_that_are_none_raise(size):
    with pytest.raises(ValueError, match=f"hidden: expected a positive integer, got {size!r}"):
        jl.lstm(size)
    with pytest.raises(ValueError, match="features: expected a positive integer"):
        jl.init_lstm(KEY, size, 5)
    with pytest.raises(ValueError, match="hidden: expected a positive integer"):
        jl.init_lstm(KEY, 4, size)


def test_integers_as_input_raise():
    with pytest.raises(
        ValueError, match="x: expected an array of floating-point numbers, got shape"
    ):
        jl.lstm(5).init(KEY, jnp.ones(4, int))


@pytest.mark.parametrize(
    ("x", "carry", "message"),
    [
        ((3, 7), (3, 5), r"x: expected 4 features on the last axis, as in params.w_x, got .*3, 7"),
        (
            (3, 4),
            (2, 5),
            r"carry.h: expected shape \(3, 5\) as x and params.w_h have it, got .*2, 5",
        ),
        ((3, 4), (3, 6), r"carry.h: expected shape \(3, 5\).*got shape \(3, 6\) of float32"),
    ],
)
def test_shapes_that_do_not_fit_raise(x, carry, message):
    params = jl.init_lstm(KEY, 4, 5)
    zeros = jnp.zeros(carry, jnp.float32)
    with pytest.raises(ValueError, match=message):
        jl.lstm_step(params, jl.LSTMCarry(zeros, zeros), jnp.ones(x))


def test_a_carry_of_another_kind_raises():
    with pytest.raises(ValueError, match=r"carry: expected a NamedTuple with a field h.*got tuple"):
        jl.lstm_step(jl.init_lstm(KEY, 4, 5), (jnp.zeros(5), jnp.zeros(5)), jnp.ones(4))


@pytest.mark.parametrize("c", [(5,), (2, 5), (3, 4)])
def test_cell_states_that_do_not_fit_raise(c):
    cell, x = jl.lstm(5), jnp.ones((3, 4))
    carry = jl.LSTMCarry(jnp.zeros(c), jnp.zeros((3, 5)))
    with pytest.raises(ValueError, match=r"carry.c: expected batch axes \(3,\) and a last"):
        cell.step(papers.drawn(cell, x, KEY), carry, x)
