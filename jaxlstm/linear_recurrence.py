"""The linear recurrence h_t = a_t ⊙ h_{t-1} + b_t, all of a sequence at once."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from jaxlstm.base import Array, select, symbolic_steps
from jaxlstm.checks import check, check_floating, check_shape, describe


def linear_recurrence(
    a: Array,
    b: Array,
    initial: Array | None = None,
    *,
    resets: Array | None = None,
    restart: Array | None = None,
) -> Array:
    """Solves a linear recurrence with diagonal factors by an associative scan.

        h_t = a_t ⊙ h_{t-1} + b_t,   h_{-1} = initial

    The pairs (a, b) compose associatively, so that T steps take about 2 log2(T) rounds of
    elementwise operations, where a loop takes T.

    Args:
      a: (T, ...) floating point.
      b: of the shape of a.
      initial: h before the first step, of the shape of one step; None for zero.
      resets: booleans with the first axes of a, time among them; where True, `restart` stands
        for h_{t-1}, whatever that was, NaN included.
      restart: of the shape of one step; None for zero.

    Returns:
      h at every step, (T, ...).

    Raises:
      ValueError: if the shapes do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlstm import linear_recurrence
      >>> linear_recurrence(jnp.full(4, 0.5), jnp.ones(4)).tolist()
      [1.0, 1.5, 1.75, 1.875]

    References:
      Blelloch 1990, Prefix sums and their applications, CMU-CS-90-190, section 1.4.1; Martin and
      Cundy 2018, arXiv:1709.04057.
    """
    check_floating(a, "a")
    check_floating(b, "b")
    check(a.ndim > 0, "a", "time as the first axis", describe(a))
    check_shape(b, a.shape, "b", "as a has it")
    for name, value in (("initial", initial), ("restart", restart)):
        if value is not None:
            check_shape(value, a.shape[1:], name, "as a step of a has it")
    if not a.shape[0]:
        return b
    if resets is None:
        cut = None
    else:
        fits = resets.dtype == bool and resets.shape == a.shape[: resets.ndim] and resets.ndim > 0
        check(fits, "resets", "booleans with the first axes of a", describe(resets))
        cut = jnp.broadcast_to(
            resets.reshape(resets.shape + (1,) * (a.ndim - resets.ndim)), a.shape
        )
        if restart is not None:
            b = b + jnp.where(cut, a * restart, 0)
    if initial is not None:
        first = a[0] * initial if cut is None else jnp.where(cut[0], 0, a[0] * initial)
        b = b.at[0].add(first)
    if cut is None:
        return lax.associative_scan(_compose, (a, b))[1]
    return lax.associative_scan(_compose_cut, (a, b, cut))[1]


def _compose(first, second):
    (a1, b1), (a2, b2) = first, second
    return a1 * a2, a2 * b1 + b2


def _compose_cut(first, second):
    (a1, b1, cut1), (a2, b2, cut2) = first, second
    # Both, since what is cut off may be NaN, and a product that nothing reads may overflow.
    a1, b1 = jnp.where(cut2, 0, a1), jnp.where(cut2, 0, b1)
    return a1 * a2, a2 * b1 + b2, cut1 | cut2


class LinearUnroll(NamedTuple):
    """`jaxlstm.base.Unroll` of a cell whose carry has one field h, linear in itself.

    The cell's step is `h' = a ⊙ h + b` with `(a, b) = coefficients(params, x)`, and its output
    h' in the dtype `of(params, x)`.
    """

    coefficients: Callable[[Any, Any], tuple[Array, Array]]
    of: Callable[[Any, Any], Any]

    def __call__(self, params, carry, xs, *, valid, resets, initial, implementation):
        if implementation not in (None, "associative"):
            raise ValueError(
                f"implementation: expected 'associative' or 'reference', got {implementation!r}"
            )
        if symbolic_steps(xs, implementation):
            return None
        a, b = self.coefficients(params, xs)
        dtype = carry.h.dtype
        a = select(valid, a, jnp.ones_like(a)).astype(dtype)
        b = select(valid, b, jnp.zeros_like(b)).astype(dtype)
        restart = None if resets is None else initial.h
        hs = linear_recurrence(a, b, carry.h, resets=resets, restart=restart)
        return carry._replace(h=hs[-1]), hs.astype(self.of(params, xs))

    def explain(self, params, xs):
        return {"associative": symbolic_steps(xs)}

    def step(self, params, carry, x):
        """One step: the cell's definition."""
        a, b = self.coefficients(params, x)
        check_shape(carry.h, a.shape, "carry.h", "as x and params have it")
        h = (a * carry.h + b).astype(carry.h.dtype)
        return carry._replace(h=h), h.astype(self.of(params, x))
