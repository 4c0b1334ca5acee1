"""Inputs, params and comparisons for the tests of our cells in Flax Linen."""

import jax
import jax.numpy as jnp
import numpy as np

T, B, D, H = 7, 3, 4, 5
KEY = jax.random.key(0)
X64 = dict(param_dtype=jnp.float64)


def random(tree, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape)), tree)


def drawn(owner, x):
    """What its init gives, with random numbers."""
    return random(jax.eval_shape(owner.init, KEY, x))


def close(actual, expected):
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-12, atol=1e-12)


def equal(actual, expected):
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def inputs(*space):
    return random(np.zeros((B, T, *space, D)))


def first(tree):
    """Time first, and back."""
    return jax.tree.map(lambda a: a.swapaxes(0, 1), tree)
