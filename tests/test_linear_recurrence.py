import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl
from tests import papers

KEY = jax.random.key(0)
T, B, H = 11, 2, 3
A, X = jnp.asarray(papers.normal(2, T, B, H))
FIRST, AGAIN = jnp.asarray(papers.normal(2, B, H))
RESETS = np.arange(T * B).reshape(T, B) % 5 == 0


def loop(a, b, h, resets, again):
    (a, b), hs = map(np.asarray, (a, b)), []
    for t in range(T):
        before = np.where(resets[t][:, None], again, h)
        h = a[t] * before + b[t]
        hs.append(h)
    return np.stack(hs)


def test_it_is_the_loop():
    expected = loop(A, X, FIRST, RESETS, AGAIN)
    actual = jl.linear_recurrence(A, X, FIRST, resets=RESETS, restart=AGAIN)
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)
    expected = loop(A, X, np.zeros((B, H)), 0 * RESETS, AGAIN)
    np.testing.assert_allclose(jl.linear_recurrence(A, X), expected, rtol=1e-12, atol=1e-12)


@jax.jit
def after(resets, a, b):
    return jl.linear_recurrence(a, b, resets=resets)[6:]


slopes_after = jax.jit(jax.grad(lambda *given: jnp.sin(after(*given)).sum(), (1, 2)))


def test_nan_does_not_outlast_a_reset_in_values_or_gradients():
    resets = np.arange(T) == 6
    spoilt = X.at[3].set(jnp.nan)
    np.testing.assert_array_equal(after(resets, A, spoilt), after(resets, A, X))
    assert all(jnp.isfinite(g[6:]).all() for g in slopes_after(resets, A, spoilt))


def test_a_reset_ends_nan_and_overflow_of_the_factors_too():
    resets = np.arange(T) == 6
    for spoilt in (A.at[5].set(jnp.nan), A.at[:6].set(1e200)):
        np.testing.assert_array_equal(after(resets, spoilt, X), after(resets, A, X))
        assert all(jnp.isfinite(g[6:]).all() for g in slopes_after(resets, spoilt, X))


def test_no_step_at_all():
    assert jl.linear_recurrence(A[:0], X[:0], FIRST).shape == (0, B, H)


@pytest.mark.parametrize("cell", [jl.mingru(5), jl.minlstm(5)], ids=repr)
def test_gates_that_are_shut_or_open_have_finite_gradients(cell):
    xs = jnp.asarray(1e4 * papers.normal(6, 3, 4), jnp.float32)
    params = papers.drawn(cell, xs[0], KEY)
    loss = lambda params, xs: jnp.tanh(jl.scan(cell, params, xs)[1]).sum()
    values, gradients = jax.jit(jax.value_and_grad(loss, (0, 1)))(params, xs)
    assert all(jnp.isfinite(a).all() for a in jax.tree.leaves((values, gradients)))


@pytest.mark.parametrize("cell", [jl.mingru(5), jl.minlstm(5)], ids=repr)
def test_half_precision_has_a_state_in_float32(cell):
    xs = jax.random.normal(KEY, (6, 3, 4), jnp.bfloat16)
    params = papers.drawn(cell, xs[0], KEY)
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
