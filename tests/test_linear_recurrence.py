import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl

KEY = jax.random.key(0)
T, B, H = 11, 2, 3
A, X = jax.random.normal(KEY, (2, T, B, H), jnp.float64)
FIRST, AGAIN = jax.random.normal(jax.random.key(1), (2, B, H), jnp.float64)
RESETS = np.arange(T * B).reshape(T, B) % 5 == 0


def loop(a, b, h, resets, again):
    hs = []
    for t in range(T):
        before = np.where(resets[t][:, None], again, h)
        h = np.asarray(a[t]) * before + np.asarray(b[t])
        hs.append(h)
    return np.stack(hs)


def test_it_is_the_loop():
    expected = loop(A, X, FIRST, RESETS, AGAIN)
    actual = jl.linear_recurrence(A, X, FIRST, resets=RESETS, restart=AGAIN)
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)
    expected = loop(A, X, np.zeros((B, H)), 0 * RESETS, AGAIN)
    np.testing.assert_allclose(jl.linear_recurrence(A, X), expected, rtol=1e-12, atol=1e-12)


def test_nan_does_not_outlast_a_reset_in_values_or_gradients():
    resets = np.arange(T) == 6
    spoilt = X.at[3].set(jnp.nan)
    after = lambda a, b: jl.linear_recurrence(a, b, resets=resets)[6:]
    np.testing.assert_array_equal(after(A, spoilt), after(A, X))
    for of in (0, 1):
        g = jax.grad(lambda *ab: jnp.sin(after(*ab)).sum(), of)(A, spoilt)
        assert jnp.isfinite(g[6:]).all()


def test_a_reset_ends_nan_and_overflow_of_the_factors_too():
    resets = np.arange(T) == 6
    after = lambda a, b: jl.linear_recurrence(a, b, resets=resets)[6:]
    for spoilt in (A.at[5].set(jnp.nan), A.at[:6].set(1e200)):
        np.testing.assert_array_equal(after(spoilt, X), after(A, X))
        g = jax.grad(lambda *ab: jnp.sin(after(*ab)).sum(), (0, 1))(spoilt, X)
        assert all(jnp.isfinite(part[6:]).all() for part in g)


def test_no_step_at_all():
    assert jl.linear_recurrence(A[:0], X[:0], FIRST).shape == (0, B, H)


@pytest.mark.parametrize("cell", [jl.mingru(5), jl.minlstm(5)], ids=repr)
def test_gates_that_are_shut_or_open_have_finite_gradients(cell):
    xs = 1e4 * jax.random.normal(KEY, (6, 3, 4), jnp.float32)
    params = cell.init(KEY, xs[0])
    loss = lambda params, xs: jnp.tanh(jl.scan(cell, params, xs)[1]).sum()
    values, gradients = jax.value_and_grad(loss, (0, 1))(params, xs)
    assert all(jnp.isfinite(a).all() for a in jax.tree.leaves((values, gradients)))


@pytest.mark.parametrize("cell", [jl.mingru(5), jl.minlstm(5)], ids=repr)
def test_half_precision_has_a_state_in_float32(cell):
    xs = jax.random.normal(KEY, (6, 3, 4), jnp.bfloat16)
    params = cell.init(KEY, xs[0])
    for implementation in ("reference", "associative"):
        carry, ys = jl.scan(cell, params, xs, implementation=implementation)
        assert (carry.h.dtype, ys.dtype) == (jnp.float32, jnp.bfloat16)
        wide = jax.tree.map(lambda a: a.astype(jnp.float64), (params, xs))
        np.testing.assert_allclose(ys.astype(float), jl.scan(cell, *wide)[1], atol=0.02)


def test_what_does_not_fit_raises():
    with pytest.raises(ValueError, match=r"b: expected shape \(11, 2, 3\) as a has it"):
        jl.linear_recurrence(A, X[1:])
    with pytest.raises(ValueError, match=r"initial: expected shape \(2, 3\)"):
        jl.linear_recurrence(A, X, A)
    with pytest.raises(ValueError, match=r"resets: expected booleans with the first axes of a"):
        jl.linear_recurrence(A, X, resets=RESETS[1:])
    with pytest.raises(ValueError, match="implementation: expected 'associative' or 'reference'"):
        jl.scan(jl.mingru(5), jl.init_mingru(KEY, 3, 5), A, implementation="blocked")
    with pytest.raises(ValueError, match="implementation: expected 'hoisted' or 'reference'"):
        jl.scan(jl.mgu(5), jl.init_mgu(KEY, 3, 5), A, implementation="blocked")
