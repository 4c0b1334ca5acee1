"""Cases for the diagnostics."""

import jax
import jax.numpy as jnp
import numpy as np

import jaxlstm as jl
from tests import papers

SAME = dict(rtol=0, atol=1e-12)  # float64, a few operations on numbers of about one
T, B, D, H = 6, 3, 4, 5
KEY = jax.random.key(3)


def case(cell, key=KEY):
    """Params away from their initial values, xs, and a first carry that is not zero."""
    xs = papers.normal(T, B, D)
    params = papers.drawn(cell, xs[0], key)
    if isinstance(cell, jl.Layer):
        return params, jnp.asarray(xs), None
    carry = cell.initial_carry(params, jnp.asarray(xs[0]), key)
    floating = lambda a: jnp.issubdtype(a.dtype, jnp.floating)
    vary = lambda a: jnp.asarray(0.5 + 0.1 * np.arange(a.size).reshape(a.shape) / a.size + a)
    return params, jnp.asarray(xs), jax.tree.map(lambda a: vary(a) if floating(a) else a, carry)


def before(start, states):
    return jnp.concatenate([start[None], states[:-1]])


def alike(seen, alone, place):
    for kind in ("gates", "candidates", "states"):
        for name, value in getattr(alone, kind).items():
            np.testing.assert_allclose(getattr(seen, kind)[place + name], value, **SAME)
