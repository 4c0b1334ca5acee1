import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl
from tests import matrices, papers

KEY = jax.random.key(0)
FORGET = ["sigmoid", "exp"]


def lone(i, f, g, o):
    """Params of one unit whose gates are given numbers times the one input."""
    w_x = jnp.array([i, f, g, o], jnp.float64).reshape(1, 4, 1)
    return jl.SLSTMParams(w_x, jnp.zeros((1, 1, 4, 1)), jnp.zeros((4, 1)))


def empty(*shape, dtype=jnp.float64):
    return jl.SLSTMCarry(*jnp.zeros((4, *shape), dtype))


def reached(cell, params, x):
    """A carry that is not zero and that steps have led to."""
    step = lambda carry, x: cell.step(params, carry, x)
    return jax.lax.scan(step, cell.initial_carry(params, x), jnp.stack([x, -x, 2 * x]))[0]


def sigmoid(a):
    return 1 / (1 + math.exp(-a))


@pytest.mark.parametrize("forget", FORGET)
def test_one_unit_by_hand_without_the_stabiliser(forget):
    params, carry = lone(0.5, -1.0, 2.0, 0.3), empty(1)
    params = params._replace(w_h=jnp.array([0.1, 0.2, -0.4, 0.7]).reshape(1, 1, 4, 1))
    c = n = h = 0.0
    for x in (1.5, -0.2, 0.8):
        i = math.exp(0.5 * x + 0.1 * h)
        f = (sigmoid if forget == "sigmoid" else math.exp)(-1.0 * x + 0.2 * h)
        g = math.tanh(2.0 * x - 0.4 * h)
        o = sigmoid(0.3 * x + 0.7 * h)
        c, n = f * c + i * g, f * n + i
        h = o * c / n
        carry, y = jl.slstm_step(params, carry, jnp.array([x]), forget=forget)
        states = [float(a[0] * jnp.exp(carry.m[0])) for a in (carry.c, carry.n)]
        np.testing.assert_allclose([*states, y[0]], [c, n, h], rtol=1e-14)


@pytest.mark.parametrize("forget", FORGET)
def test_the_first_output_is_the_candidate_whatever_the_input_gate(forget):
    x, carry = jnp.ones(1, jnp.float32), empty(1, dtype="float32")
    run = lambda params: jl.slstm_step(params, carry, x, forget=forget)[1].sum()
    derived = jax.jit(jax.value_and_grad(run))
    for i in (-1e4, -90.0, 0.0, 90.0, 1e4):
        params = jax.tree.map(lambda a: a.astype(jnp.float32), lone(i, 3.0, 0.6, 0.2))
        y, slopes = derived(params)
        np.testing.assert_allclose(y, sigmoid(0.2) * math.tanh(0.6), rtol=1e-6)
        np.testing.assert_allclose(slopes.b[:2], 0, atol=1e-6)  # nothing to weigh it against
        np.testing.assert_allclose(slopes.b[2], [sigmoid(0.2) / math.cosh(0.6) ** 2], rtol=1e-5)


def test_with_nothing_forgotten_and_equal_input_gates_h_is_the_mean_of_the_candidates():
    xs = jnp.array([0.3, -1.2, 2.0, 0.1])[:, None]
    _, hs = jl.scan(jl.slstm(1, forget="exp"), lone(0, 0, 1.0, 0), xs, empty(1))
    means = np.cumsum(np.tanh(xs[:, 0])) / np.arange(1, 5)
    np.testing.assert_allclose(hs[:, 0], 0.5 * means, rtol=1e-14)


@pytest.mark.parametrize("forget", FORGET)
def test_the_stabiliser_does_not_matter(forget):
    cell, xs = jl.slstm(4, heads=2, forget=forget), papers.normal(5, 3, 4)
    params = papers.drawn(cell, xs[0], KEY)
    carry = reached(cell, params, xs[0])
    expected = jl.scan(cell, params, xs, carry)[1]
    for shift in (-30.0, 2.0, 30.0):
        less = math.exp(-shift)
        shifted = carry._replace(c=less * carry.c, n=less * carry.n, m=carry.m + shift)
        papers.close(jl.scan(cell, params, xs, shifted)[1], expected, 1e-13)


@pytest.mark.parametrize(
    ("implementation", "forget"), matrices.crossed(["reference", "blocked"], FORGET)
)
def test_huge_gates_overflow_nowhere(implementation, forget):
    cell, xs = jl.slstm(4, forget=forget), 1e4 * papers.normal(8, 3, 4).astype(np.float32)
    params = papers.drawn(cell, xs[0], KEY)

    def loss(params, xs):
        carry, ys = jl.scan(cell, params, xs, implementation=implementation)
        return (ys**2).sum(), (carry, ys)

    slopes, out = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(params, xs)
    assert all(np.isfinite(a).all() for a in jax.tree.leaves((slopes, out)))
    assert np.abs(out[1]).max() <= 1


def test_derivatives_of_an_empty_state_are_those_next_to_it():
    params, x = lone(-2.0, 1.0, 0.6, 0.2), jnp.ones(1)
    h = lambda c, n: jl.slstm_step(params, empty(1)._replace(c=c, n=n), x)[1][0]
    at = jnp.zeros(1), jnp.full(1, 1e-9)  # with n above zero m' is another one
    actual, expected = jax.grad(h, (0, 1))(*jnp.zeros((2, 1))), jax.grad(h, (0, 1))(*at)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)
    assert abs(actual[0][0]) > 1


def test_heads_are_cells_apart():
    cell, xs = jl.slstm(6, heads=2), papers.normal(5, 3, 4)
    params = papers.drawn(cell, xs[0], KEY)
    whole = jl.scan(cell, params, xs)
    for head in range(2):
        mine = slice(3 * head, 3 * head + 3)
        w_x, w_h, b = params
        alone = jl.SLSTMParams(w_x[..., mine], w_h[head][None], b[:, mine])
        expected = jax.tree.map(lambda a, mine=mine: a[..., mine], whole)
        papers.close(jl.scan(jl.slstm(3), alone, xs), expected, 1e-14)


def test_each_head_is_drawn_as_an_lstm_of_its_own():
    params = jl.init_slstm(KEY, 50, 64, heads=2, dtype=jnp.float64)
    for head in range(2):
        for gate in range(4):
            block = params.w_h[head, :, gate]
            np.testing.assert_allclose(block.T @ block, np.eye(32), atol=1e-12)
    bound = math.sqrt(6 / (50 + 32))
    assert 0.99 * bound < np.abs(params.w_x).max() <= bound
    assert len({float(a) for a in params.w_h[:, 0, :, 0].ravel()}) == 8


@pytest.mark.parametrize(("forget", "bias"), [("sigmoid", 1), ("exp", 0)])
def test_biases_begin_at_zero_but_that_of_a_sigmoid_forget_gate(forget, bias):
    b = jl.slstm(4, forget=forget).init(KEY, jnp.ones(3)).b
    np.testing.assert_array_equal(b, [[0] * 4, [bias] * 4, [0] * 4, [0] * 4])


@pytest.mark.parametrize("implementation", ["reference", "blocked"])
def test_half_precision_stays_half_precision_but_for_the_states(implementation):
    cell, xs = jl.slstm(4, heads=2), jnp.asarray(papers.normal(6, 3, 4), jnp.bfloat16)
    params = papers.drawn(cell, xs[0], KEY)
    run = lambda params, xs: jl.scan(cell, params, xs, implementation=implementation)
    carry, ys = run(params, xs)
    assert {a.dtype for a in (*params, carry.h, ys)} == {jnp.dtype(jnp.bfloat16)}
    assert {a.dtype for a in (carry.c, carry.n, carry.m)} == {jnp.dtype(jnp.float32)}
    wide = jax.tree.map(lambda a: a.astype(jnp.float64), (params, xs))
    np.testing.assert_allclose(ys.astype(float), run(*wide)[1], atol=0.02)  # h has 8 bits


@pytest.mark.parametrize("size", [0, -1, 2.0, "5", True, None])
def test_sizes_that_are_none_raise(size):
    with pytest.raises(ValueError, match=f"hidden: expected a positive integer, got {size!r}"):
        jl.slstm(size)
    with pytest.raises(ValueError, match="heads: expected a positive integer"):
        jl.slstm(4, heads=size)
    with pytest.raises(ValueError, match="features: expected a positive integer"):
        jl.init_slstm(KEY, size, 4)


def test_heads_that_do_not_divide_the_units_raise():
    with pytest.raises(ValueError, match="heads: expected a divisor of hidden, which is 6, got 4"):
        jl.slstm(6, heads=4)
    with pytest.raises(ValueError, match="heads: expected a divisor of hidden, which is 6, got 4"):
        jl.init_slstm(KEY, 3, 6, heads=4)


def test_an_unknown_forget_gate_raises():
    message = r"forget: expected one of \['sigmoid', 'exp'\], got 'relu'"
    with pytest.raises(ValueError, match=message):
        jl.slstm(4, forget="relu")
    with pytest.raises(ValueError, match=message):
        jl.slstm_step(jl.init_slstm(KEY, 3, 4), empty(4), jnp.ones(3), forget="relu")


def test_shapes_and_dtypes_that_do_not_fit_raise():
    with pytest.raises(ValueError, match="x: expected an array of floating-point numbers, got"):
        jl.slstm(4).init(KEY, jnp.ones(3, int))
    params = jl.init_slstm(KEY, 3, 4)
    with pytest.raises(ValueError, match=r"x: expected 3 features .* got shape \(2, 7\)"):
        jl.slstm_step(params, empty(2, 4), jnp.ones((2, 7)))
    with pytest.raises(ValueError, match=r"carry.h: expected shape \(3, 4\) .* got shape \(2, 4\)"):
        jl.slstm_step(params, empty(2, 4), jnp.ones((3, 3)))
