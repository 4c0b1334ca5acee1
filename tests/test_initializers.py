import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlstm as jl
from jaxlstm import initializers

KEY = jax.random.key(0)


def test_uniform_is_pytorch_s():
    params = initializers.uniform(KEY, jl.init_lstm(KEY, 50, 100), 0.1)
    for leaf in jax.tree.leaves(params):
        assert 0.09 < np.abs(leaf).max() <= 0.1
        np.testing.assert_allclose(np.std(leaf), 0.1 / math.sqrt(3), rtol=0.1)
    assert len({float(leaf.ravel()[0]) for leaf in jax.tree.leaves(params)}) == 3


def test_chrono_spreads_the_times_of_forgetting():
    b = initializers.chrono(KEY, jnp.full((4, 5000), 7.0), 1000, forget=1, input=0)
    times = np.exp(b[1])
    assert 1 <= times.min() < 5
    assert 995 < times.max() <= 999.01
    np.testing.assert_allclose(times.mean(), 500, rtol=0.03)
    np.testing.assert_array_equal(b[0], -b[1])
    assert (b[2:] == 7).all()
    alone = initializers.chrono(KEY, jnp.zeros((2, 5)), 10, forget=0, input=None)
    assert not alone[1].any()


def test_identity_keeps_what_a_relu_network_holds():
    params = jax.tree.map(jnp.zeros_like, jl.init_elman(KEY, 3, 4))
    params = params._replace(w_h=initializers.identity(params.w_h))
    start = jl.ElmanCarry(jnp.arange(4.0))
    last, _ = jl.scan(jl.elman(4, activation="relu"), params, jnp.ones((500, 3)), start)
    np.testing.assert_array_equal(last.h, start.h)
    np.testing.assert_array_equal(initializers.identity(params.w_h, 0.5), 0.5 * np.eye(4))


def test_what_does_not_fit_raises():
    params = jl.init_lstm(KEY, 3, 4)
    with pytest.raises(ValueError, match="bound: expected a positive number, got 0"):
        initializers.uniform(KEY, params, 0)
    with pytest.raises(ValueError, match="longest: expected at least 3 steps, got 2"):
        initializers.chrono(KEY, params.b, 2, forget=1, input=0)
    with pytest.raises(ValueError, match=r"b: expected \(G, H\), got shape \(4,\)"):
        initializers.chrono(KEY, params.b[0], 20, forget=1, input=0)
    with pytest.raises(ValueError, match=r"w_h: expected \(H, H\), got shape \(4, 4, 4\)"):
        initializers.identity(params.w_h)
