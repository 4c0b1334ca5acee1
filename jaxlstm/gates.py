"""The squashing functions of gates, all of a cell's in one pass.

Each has a derivative of its own, of the value alone: JAX's of tanh keeps two arrays for the
gradient, those of the constants around it more.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.ad_checkpoint import checkpoint_name

NAMED = "jaxlstm."  # before the names of values within a step
normalised = partial(jax.nn.standardize, epsilon=1e-5)  # over the last axis, or those given


@jax.custom_jvp
def tanh(a: Array) -> Array:
    """The hyperbolic tangent."""
    return jnp.tanh(a)


@tanh.defjvp
def _tanh_jvp(primals, tangents):
    t = tanh(*primals)
    return t, tangents[0] * ((1 - t) * (1 + t))


@jax.custom_jvp
def sigmoid(a: Array) -> Array:
    """σ(a) = tanh(a / 2) / 2 + 1/2; its absolute error is that of tanh."""
    return 0.5 * jnp.tanh(0.5 * a) + 0.5


@sigmoid.defjvp
def _sigmoid_jvp(primals, tangents):
    s = sigmoid(*primals)
    return s, tangents[0] * ((1 - s) * s)


def gates(a: Array) -> list[Array]:
    """The gates (..., H) of a (..., G, H)."""
    axis = a.ndim - 2
    return [lax.squeeze(gate, (axis,)) for gate in lax.split(a, (1,) * a.shape[axis], axis)]


def sums(z: Array, u: Array) -> list[Array]:
    """The gates of z + u, both (..., G, H), which are added apart.

    For updates of which XLA makes one loop: `jaxlstm.kernels.blocked` then reads z gate by gate.
    """
    return [a + b for a, b in zip(gates(z), gates(u), strict=True)]


def named(**values: Array) -> list[Array]:
    """The values as they are, each under its name for `jaxlstm.diagnostics` to find in a step.

    A compiled program is the same with and without, if a value is named where it is computed: what
    a loop reads anyway, named within it, would be kept twice for the gradient. A value named g or
    n, or after a prefix so (`small_g`), is a candidate, any other a gate.
    """
    return [checkpoint_name(a, f"{NAMED}{name}") for name, a in values.items()]


def activate(a: Array, *functions: Callable[[Array], Array]) -> list[Array]:
    """Applies to each gate of a (..., G, H) its function, `sigmoid` or `tanh`.

    One tanh over all of `a`, which XLA vectorises, where a function a gate would be G passes
    over strided slices: half the time of a whole forward sweep on a CPU.
    """
    return gates(_squash(tuple(f is sigmoid for f in functions), a))


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _squash(logistic, a):
    """The logistic function of the gates where `logistic` holds, tanh of the others."""
    scale, shift = _constants(logistic, (0.5, 1.0), (0.5, 0.0), dtype=a.dtype)
    return jnp.tanh(a * scale) * scale + shift


@_squash.defjvp
def _squash_jvp(logistic, primals, tangents):
    y = _squash(logistic, *primals)
    (other,) = _constants(logistic, (0.0, 1.0), dtype=y.dtype)
    return y, tangents[0] * ((1 - y) * (other + y))


def _constants(logistic, *pairs, dtype):
    """(G, 1) arrays: the first of a pair for the logistic gates, the second for others."""
    where = np.array(logistic)[:, None]
    return [np.where(where, *pair).astype(dtype) for pair in pairs]
