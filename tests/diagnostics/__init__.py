"""Cases for the diagnostics."""

import jax
import jax.numpy as jnp
import numpy as np

import jaxlstm as jl

SAME = dict(rtol=0, atol=1e-12)  # float64, a few operations on numbers of about one
T, B, D, H = 6, 3, 4, 5
KEY = jax.random.key(3)


def case(cell, key=KEY):
    """Params away from their initial values, xs, and a first carry that is not zero."""
    keys = jax.random.split(key, 4)
    xs = jax.random.normal(keys[0], (T, B, D))
    params = cell.init(keys[1], xs[0])
    leaves, tree = jax.tree.flatten(params)
    noise = jax.random.split(keys[2], len(leaves))
    draw = lambda a, k: a + 0.3 * jax.random.normal(k, a.shape, a.dtype)
    params = tree.unflatten(map(draw, leaves, noise))
    if isinstance(cell, jl.Layer):
        return params, xs, None
    carry = cell.initial_carry(params, xs[0], keys[3])
    floating = lambda a: jnp.issubdtype(a.dtype, jnp.floating)
    vary = lambda a: 0.5 + 0.1 * jnp.arange(a.size).reshape(a.shape) / a.size + a
    return params, xs, jax.tree.map(lambda a: vary(a) if floating(a) else a, carry)


def before(start, states):
    return jnp.concatenate([start[None], states[:-1]])


def alike(seen, alone, place):
    for kind in ("gates", "candidates", "states"):
        for name, value in getattr(alone, kind).items():
            np.testing.assert_allclose(getattr(seen, kind)[place + name], value, **SAME)
