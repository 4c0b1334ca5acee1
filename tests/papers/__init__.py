"""The cells' equations as the papers print them, gate by gate, and the plain scan of them."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxlstm import ElmanCarry, GRUCarry, LSTMCarry
from jaxlstm.testing.oracle import stirred


def sigmoid(a):
    return 1 / (1 + jnp.exp(-a))


def lstm(params, carry, x):
    """Gers, Schraudolph and Schmidhuber 2002, eq. 1 to 5; without peepholes, Gers et al. 2000."""
    w, u, b, (c, h) = params.w_x, params.w_h, params.b, carry
    p_i, p_f, p_o = jnp.zeros((3, *b[0].shape)) if params.peephole is None else params.peephole
    i = sigmoid(x @ w[:, 0] + h @ u[:, 0] + b[0] + p_i * c)
    f = sigmoid(x @ w[:, 1] + h @ u[:, 1] + b[1] + p_f * c)
    g = jnp.tanh(x @ w[:, 2] + h @ u[:, 2] + b[2])
    c = f * c + i * g
    o = sigmoid(x @ w[:, 3] + h @ u[:, 3] + b[3] + p_o * c)
    h = o * jnp.tanh(c)
    return LSTMCarry(c, h), h


def gru(params, carry, x):
    """Cho et al. 2014, version 1 of arXiv:1406.1078, with PyTorch's roles of z and 1 - z."""
    w, u, b, (h,) = params.w_x, params.w_h, params.b, carry
    r = sigmoid(x @ w[:, 0] + h @ u[:, 0] + b[0])
    z = sigmoid(x @ w[:, 1] + h @ u[:, 1] + b[1])
    n = jnp.tanh(x @ w[:, 2] + b[2] + r * (h @ u[:, 2] + params.b_n))
    h = (1 - z) * n + z * h
    return GRUCarry(h), h


def elman_tanh(params, carry, x):
    """Elman 1990."""
    h = jnp.tanh(x @ params.w_x + carry.h @ params.w_h + params.b)
    return ElmanCarry(h), h


def elman_relu(params, carry, x):
    """Le, Jaitly and Hinton 2015, arXiv:1504.00941."""
    h = jnp.maximum(x @ params.w_x + carry.h @ params.w_h + params.b, 0)
    return ElmanCarry(h), h


def scan(step):
    """A function of params, xs and carry."""
    return lambda params, xs, carry: lax.scan(lambda c, x: step(params, c, x), carry, xs)


def normal(*shape):
    """NumPy's numbers, for which nothing is compiled."""
    return np.random.default_rng(shape).normal(size=shape)


def drawn(layer, x, key):
    """Params of normal numbers, for which nothing is compiled either."""
    shapes = jax.eval_shape(layer.init, key, x)
    return away_from_zero(key, jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), shapes))


def away_from_zero(key, tree):
    """`tree` with noise on every float that is not Persistent: no bias of zero."""
    return stirred(np.random.default_rng(np.asarray(jax.random.key_data(key))), tree)


def close(actual, expected, tolerance):
    """Whether two trees have the same structure and nearly the same numbers."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        a, e = np.asarray(a), np.asarray(e)
        assert a.shape == e.shape
        assert np.abs(a - e).max() <= tolerance * max(1.0, np.abs(e).max())
